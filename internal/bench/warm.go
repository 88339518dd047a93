package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// warmed measures how fast stsmap warm has the policies of names retrieved, eight at a time.
func (b *bench) warmed() error {
	d, err := b.daemon("warmed", setup{control: true})
	if err != nil {
		return err
	}
	return errors.Join(b.warmBy(d), d.stop())
}

func (b *bench) warmBy(d *daemon) error {
	keys := series{policySlow, 700000, b.some(2000)}
	var names strings.Builder
	for i := range keys.N {
		fmt.Fprintln(&names, keys.domain(i))
	}
	list := filepath.Join(b.dir, "names")
	if err := os.WriteFile(list, []byte(names.String()), 0o600); err != nil {
		return err
	}
	began := time.Now()
	out, err := exec.Command(b.program, "warm", "--quiet", "--config", d.conf, list).CombinedOutput()
	if err != nil {
		return fmt.Errorf("warm: %w: %s", err, out)
	}
	rate := float64(keys.N) / time.Since(began).Seconds()
	t, err := call[tally](b.load, job{What: "each", Addr: d.tcp, Conns: 8, Keys: keys})
	if err != nil {
		return err
	}
	if t.Found != keys.N {
		return fmt.Errorf("%d of %d domains that were warmed have a policy", t.Found, keys.N)
	}
	b.table.row("warm, 20 ms delays: domains/s (max 133)", fmt.Sprintf("%.0f", rate), "", "")
	return nil
}
