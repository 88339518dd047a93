package main

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"stsmap/config"
	"stsmap/override"
	"stsmap/stsfetch"
)

// TestFileQueue: reads are done one after the other; one that never returns holds
// nobody longer than the limit, and while it lasts no other is begun.
func TestFileQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newFileQueue(time.Second)
		var ran atomic.Int32
		for range 3 {
			if err := q.do(func() { ran.Add(1) }); err != nil || ran.Load() == 0 {
				t.Errorf("%d, %v", ran.Load(), err)
			}
		}
		answers := make(chan struct{})
		for range 3 {
			began := time.Now()
			err := q.do(func() { ran.Add(1); <-answers })
			if took := time.Since(began); !errors.Is(err, errFileHangs) || took != time.Second {
				t.Errorf("%v after %s", err, took)
			}
		}
		if ran.Load() != 4 {
			t.Errorf("%d reads, want 4", ran.Load())
		}
		close(answers)
		synctest.Wait()
		if err := q.do(func() { ran.Add(1) }); err != nil || ran.Load() != 5 {
			t.Errorf("when the file system answers again: %d, %v", ran.Load(), err)
		}
	})
}

// TestOverridesHang: overrides on a file system that does not answer stay in
// force, which is logged once, and are read as soon as it answers.
func TestOverridesHang(t *testing.T) {
	path := filepath.Join(t.TempDir(), "overrides.toml")
	write := func(domain string) {
		t.Helper()
		if err := os.WriteFile(path, []byte("[[override]]\ndomain = \""+domain+"\"\naction = \"defer\"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	var applied *override.Table
	q := newFileQueue(10 * time.Millisecond)
	o := newOverrides(slog.New(slog.NewTextHandler(&log, nil)), q, func(t *override.Table) { applied = t })
	q.limit = time.Minute
	write("a.example")
	o.follow(path)

	answers := make(chan struct{})
	q.limit = 10 * time.Millisecond
	_ = q.do(func() { <-answers })
	write("b.example")
	for range 3 {
		o.look()
	}
	if err := o.again(); !errors.Is(err, errFileHangs) || !strings.Contains(err.Error(), path) {
		t.Errorf("read again: %v", err)
	}
	if applied.All()[0].Domain != "a.example" || o.trouble() != "; overrides NOT READ, the old ones are in force" {
		t.Errorf("in force: %v%s", applied.All(), o.trouble())
	}
	if n := strings.Count(log.String(), "overrides not read, the old ones stay in force"); n != 2 {
		t.Errorf("logged %d times, want once by itself and once for a request:\n%s", n, &log)
	}

	close(answers)
	q.limit = time.Minute
	o.look()
	if applied.All()[0].Domain != "b.example" || o.trouble() != "" {
		t.Errorf("in force: %v%s", applied.All(), o.trouble())
	}
}

// TestReloadHangs: a reload with files on a file system that does not answer ends,
// changes nothing, and says so of the trust anchors and of the configuration.
func TestReloadHangs(t *testing.T) {
	var log bytes.Buffer
	answers := make(chan struct{})
	defer close(answers)
	q := newFileQueue(10 * time.Millisecond)
	_ = q.do(func() { <-answers })
	cfg := config.Default()
	d := &daemon{globals: new(globals), cfg: &cfg, log: slog.New(slog.NewTextHandler(&log, nil)), files: q, systemAnchors: stsfetch.SystemAnchors(nil)}
	d.reload()
	for _, line := range []string{"trust anchors not read, the last ones stay in force", "configuration not reloaded, the old one stays in force"} {
		if !strings.Contains(log.String(), `"`+line+`" error="the file system does not answer"`) {
			t.Errorf("%q is not logged:\n%s", line, &log)
		}
	}
	if d.cfg != &cfg || d.refused.Load() == nil {
		t.Error("the configuration was replaced, or the status does not say that it was not")
	}
}
