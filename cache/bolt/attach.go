package bolt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
)

// A State is whether the path of a Store still names the file that it has open.
// It is checked every half minute and by Close.
type State int

const (
	// Attached: the path names the open file. A Store begins in this state.
	Attached State = iota
	// Restored: the path named nothing, and the open file was written there
	// anew, with all that is in it. The Store works, and is attached again.
	Restored
	// Missing: the path names nothing, and writing the file anew failed; each
	// check tries it again. Get and All work. Other methods return the error,
	// because Close would lose what they write.
	Missing
	// Replaced: the path names another file, which is not touched. Every method
	// returns ErrReplaced until that file is moved away (the Store is then
	// restored) or the open file is moved back.
	Replaced
)

// ErrReplaced is returned by every method while another file is at the path of
// the Store. The operator moves that file away, or restarts stsmap to use it.
var ErrReplaced = errors.New("another file has replaced the open one")

// watchEvery is how often the path is checked.
const watchEvery = 30 * time.Second

// A detached describes a Store whose path does not name the open file.
type detached struct {
	state State
	err   error
}

// watch compares the path with the open file, and wakes the writer if they
// differ.
func (s *Store) watch(ctx context.Context) {
	if state, _ := s.pathState(); state == Attached && s.detach.Load() == nil {
		return
	}
	_ = s.submit(ctx, &job{alone: func() error { s.checkPath(); return nil }})
}

// pathState compares the path with the open file.
func (s *Store) pathState() (State, error) {
	info, err := os.Stat(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return Missing, err
	case err == nil && !os.SameFile(info, s.file.Load().info):
		return Replaced, fmt.Errorf("%s: %w (hint: move it away, or restart stsmap to use it)", s.path, ErrReplaced)
	}
	// If the path cannot be read, nothing is known about it.
	return Attached, nil
}

// checkPath writes the file anew if it is missing, and reports each change of
// the state once. Only the writer calls it: there is no commit meanwhile, so the
// new file has everything that was acknowledged.
func (s *Store) checkPath() {
	if s.isBroken() {
		return
	}
	state, err := s.pathState()
	if state == Missing {
		if err = s.restore(); err == nil {
			state = Restored
		} else {
			err = fmt.Errorf("%s: removed while in use, and cannot be written anew: %w", s.path, err)
		}
	}
	before := Attached
	if d := s.detach.Load(); d != nil {
		before = d.state
	}
	if err == nil {
		s.detach.Store(nil)
	} else {
		s.detach.Store(&detached{state, err})
	}
	if state != before && s.options.OnState != nil {
		s.options.OnState(state, err)
	}
}

// restore writes a copy of the open file to the path, which names nothing, and
// continues with the copy. It uses Link, because Rename would replace a file that
// was created there meanwhile.
func (s *Store) restore() error {
	return s.renew(os.Link, func(f *os.File) error {
		return s.view(func(tx *bbolt.Tx) error {
			_, err := tx.WriteTo(f)
			return err
		})
	})
}
