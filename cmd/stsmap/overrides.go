package main

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"stsmap/admin"
	"stsmap/override"
	"stsmap/postfix"
)

// overridesEvery is how often the daemon looks whether the file of the overrides
// has changed, and whether one has expired. A look is one stat.
const overridesEvery = 2 * time.Second

// overrides keeps those that count as their file has them.
type overrides struct {
	log   *slog.Logger
	apply func(*override.Table)

	mu    sync.Mutex
	path  string
	stamp override.Stamp // of the file that was read last, or could not be
	table *override.Table
	read  time.Time
	err   error                // why the file does not count as it is
	over  map[string]time.Time // expired ones that were told of, by domain
}

func newOverrides(log *slog.Logger, apply func(*override.Table)) *overrides {
	return &overrides{log: log, apply: apply, over: make(map[string]time.Time)}
}

// run keeps them true until ctx ends.
func (o *overrides) run(ctx context.Context) {
	tick := time.NewTicker(overridesEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			o.look()
		}
	}
}

// follow reads the file at path, and looks at that one from now on.
func (o *overrides) follow(path string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.path = path
	_ = o.load() // it was logged
}

// again reads the file again, whether or not it seems to have changed.
func (o *overrides) again() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.load()
}

// look reads the file if it has changed.
func (o *overrides) look() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if override.StampOf(o.path) != o.stamp {
		_ = o.load() // it was logged
		return
	}
	o.expire(time.Now())
}

// load reads the file. One with a mistake changes nothing: half of the overrides
// of a file would be a state that nobody wanted. The lock must be held. No answer
// waits for it.
func (o *overrides) load() error {
	// What is written from here on makes another stamp, and is read next time.
	o.stamp = override.StampOf(o.path)
	table, err := override.Load(o.path, postfix.CheckText)
	if o.err = err; err != nil {
		o.log.Error("overrides not read, the old ones stay in force", "file", o.path, "error", oneLine(err))
		return err
	}
	o.read = time.Now()
	if !table.Equal(o.table) {
		table.Inherit(o.table)
		o.table = table
		o.apply(table)
		o.log.Info("overrides read", "file", o.path, "overrides", len(table.All()))
	}
	o.expire(o.read)
	return nil
}

// oneLine is the text of an error that can have several.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// expire tells once of each override that does not count any more. The lock must
// be held.
func (o *overrides) expire(now time.Time) {
	told := make(map[string]time.Time)
	for _, one := range o.table.All() {
		if !one.Expired(now) {
			continue
		}
		if !o.over[one.Domain].Equal(one.Until) {
			o.log.LogAttrs(context.Background(), slog.LevelWarn, "override has expired, it no longer counts", admin.OverrideAttrs(one)...)
		}
		told[one.Domain] = one.Until
	}
	o.over = told
}

// status says what counts.
func (o *overrides) status(now time.Time) admin.OverridesStatus {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := admin.OverridesStatus{File: o.path, Read: o.read, List: []admin.OverrideStatus{}}
	if o.err != nil {
		s.Error = oneLine(o.err)
	}
	for _, one := range o.table.All() {
		s.List = append(s.List, admin.CountedOverride(one, now))
	}
	return s
}
