package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"stsmap/admin"
	"stsmap/override"
	"stsmap/postfix"
)

// overridesEvery is how often the daemon looks whether the file of the overrides
// has changed, and whether one has expired. A look is one stat.
const overridesEvery = 2 * time.Second

// overrides keeps the overrides that were read from the file last.
type overrides struct {
	log   *slog.Logger
	files *fileQueue
	apply func(*override.Table)
	known atomic.Pointer[readOverrides]

	reading sync.Mutex           // orders looks at the file; only those wait for it
	stamp   override.Stamp       // of the file that was read last, or could not be
	over    map[string]time.Time // expired ones that were logged, by domain
}

// A readOverrides is what counts, and where it is from. It is not changed.
type readOverrides struct {
	path  string
	table *override.Table
	at    time.Time
	err   error // why the file does not count as it is
}

func newOverrides(log *slog.Logger, files *fileQueue, apply func(*override.Table)) *overrides {
	o := &overrides{log: log, files: files, apply: apply}
	o.known.Store(new(readOverrides))
	return o
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
	o.reading.Lock()
	defer o.reading.Unlock()
	_ = o.load(path) // it was logged
}

// again reads the file again, whether or not it seems to have changed.
func (o *overrides) again() error {
	o.reading.Lock()
	defer o.reading.Unlock()
	return o.load(o.known.Load().path)
}

// look reads the file if it has changed.
func (o *overrides) look() {
	o.reading.Lock()
	defer o.reading.Unlock()
	known := o.known.Load()
	if o.stampOf(known.path) != o.stamp {
		_ = o.load(known.path) // it was logged
		return
	}
	o.expire(known.table, time.Now())
}

// load reads the file at path. A file with a mistake changes nothing: half of
// its overrides would be a state that the administrator never wanted. The lock
// for reading must be held. No answer waits for it.
//
// At the start there are no earlier overrides to keep, and the daemon serves
// without any. It is tempting to refuse to start, but then a typo in the
// exception for one domain would defer mail to all domains.
func (o *overrides) load(path string) error {
	table, err := o.file(path)
	last := o.known.Load()
	if err != nil {
		o.known.Store(&readOverrides{path: path, table: last.table, at: last.at, err: err})
		if last.at.IsZero() {
			o.log.Error("overrides not read, none is in force", "file", path, "error", oneLine(err))
		} else {
			o.log.Error("overrides not read, the old ones stay in force", "file", path, "error", oneLine(err))
		}
		return err
	}
	now := time.Now()
	changed := !table.Equal(last.table)
	if !changed {
		table = last.table // what was counted is counted on
	} else {
		table.Inherit(last.table)
		o.apply(table)
	}
	if gone := path != "" && o.stamp == (override.Stamp{}); changed && gone {
		// Configuration management may be between two steps, or the
		// administrator may have removed more than was meant.
		o.log.Warn("the file of the overrides is gone, none is in force", "file", path, "overrides", len(last.table.All()))
	}
	if changed || last.err != nil {
		o.log.Info("overrides read", "file", path, "overrides", len(table.All()))
	}
	o.known.Store(&readOverrides{path: path, table: table, at: now})
	o.expire(table, now)
	return nil
}

// stampOf returns the stamp of the file at path, or one of no file if the file
// system does not answer.
func (o *overrides) stampOf(path string) override.Stamp {
	var stamp override.Stamp
	if err := o.files.do(func() { stamp = override.StampOf(path) }); err != nil {
		return override.NoStamp(err)
	}
	return stamp
}

// file reads the file at path, and notes its stamp.
func (o *overrides) file(path string) (*override.Table, error) {
	// What is written from here on makes another stamp, and is read next time.
	o.stamp = o.stampOf(path)
	var table *override.Table
	var err error
	if hangs := o.files.do(func() { table, err = override.Load(path, postfix.CheckText) }); hangs != nil {
		o.stamp = override.NoStamp(hangs)
		return nil, fmt.Errorf("%s: %w", path, hangs)
	}
	return table, err
}

// oneLine is the text of an error that can have several.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// expire tells once of each override that does not count any more. The lock for
// reading must be held.
func (o *overrides) expire(table *override.Table, now time.Time) {
	told := make(map[string]time.Time)
	for _, one := range table.All() {
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

// trouble is for the line of systemctl status: that the file does not count, or
// nothing.
func (o *overrides) trouble() string {
	switch known := o.known.Load(); {
	case known.err == nil:
		return ""
	case known.at.IsZero():
		return "; overrides NOT READ, none is in force"
	}
	return "; overrides NOT READ, the old ones are in force"
}

// status says what counts.
func (o *overrides) status(now time.Time) admin.OverridesStatus {
	known := o.known.Load()
	s := admin.OverridesStatus{File: known.path, Read: known.at, List: []admin.OverrideStatus{}}
	if known.err != nil {
		s.Error = oneLine(known.err)
	}
	for _, one := range known.table.All() {
		s.List = append(s.List, admin.CountedOverride(one, now))
	}
	return s
}
