package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNotConfirmed: if a daemon runs but does not confirm that it has read the
// overrides, the command changes the file and warns. If no daemon runs, it does
// not warn.
func TestNotConfirmed(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "strange.sock"))
	if err != nil {
		t.Fatal(err)
	}
	strange := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("Hello")) }))
	strange.Listener.Close()
	strange.Listener = l
	strange.Start()
	defer strange.Close()
	conf, file := filepath.Join(dir, "stsmap.toml"), filepath.Join(dir, "overrides.toml")
	for i, c := range []struct {
		socket, quiet string
		warned        bool
	}{
		{"strange.sock", "--quiet=false", true},
		{"strange.sock", "--quiet", false},
		{"none.sock", "--quiet=false", false},
	} {
		text := fmt.Sprintf("[overrides]\nfile = %q\n[admin]\nsocket = %q\n", file, filepath.Join(dir, c.socket))
		if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		var out, errs bytes.Buffer
		root := rootCommand(console{&out, &errs})
		name := fmt.Sprintf("a%d.example", i)
		root.SetArgs([]string{"override", "set", name, "--action", "defer", "--config", conf, c.quiet})
		if err := root.ExecuteContext(t.Context()); err != nil {
			t.Errorf("%s: %v", c.socket, err)
		}
		const warning = "stsmap: warning: the file was changed, but the daemon did not confirm that it counts: /v1/overrides/read: not the answer of a daemon"
		if warned := strings.HasPrefix(errs.String(), warning) && strings.HasSuffix(errs.String(), "; if it runs, it notices within 2s\n"); warned != c.warned || !c.warned && errs.Len() > 0 {
			t.Errorf("%s %s: %q", c.socket, c.quiet, errs.String())
		}
		if now, err := os.ReadFile(file); err != nil || !strings.Contains(string(now), name) {
			t.Errorf("%s is not in %q (%v)", name, now, err)
		}
	}
}
