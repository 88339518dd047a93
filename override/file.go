package override

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"stsmap/internal/regular"
)

// Load reads the file at path. One that is not there has no overrides, and so
// has an empty path. If anything in it is wrong the error is an *Error, and if
// it cannot be read one of package regular.
func Load(path string, check Check) (*Table, error) {
	text, err := read(path)
	if err != nil {
		return nil, err
	}
	t, err := Parse(text, check)
	return t, at(path, err)
}

// at says in which file the mistakes of err are.
func at(path string, err error) error {
	if problems, ok := errors.AsType[*Error](err); ok {
		problems.Path = path
	}
	return err
}

// read returns the text of a file, which is empty if there is none.
func read(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	text, err := regular.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(text), err
}

// A Stamp tells one state of a file from another without reading it. That of a
// file that is not there is zero.
type Stamp struct {
	inode, size, changed int64
	err                  string
}

// NoStamp returns the Stamp of a file that cannot be looked at for err.
func NoStamp(err error) Stamp { return Stamp{err: err.Error()} }

// StampOf returns the Stamp of the file at path. It changes with the time of
// change, which no program can set, so also when an older file is put back.
func StampOf(path string) Stamp {
	info, err := os.Stat(path)
	if err != nil {
		if path == "" || errors.Is(err, fs.ErrNotExist) {
			return Stamp{}
		}
		return NoStamp(err)
	}
	s := Stamp{size: info.Size(), changed: info.ModTime().UnixNano()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode, s.changed = int64(sys.Ino), sys.Ctim.Nano()
	}
	return s
}

// Edit replaces the text of the file at path by the result of change, if that
// has no mistake. It replaces the file atomically: a concurrent reader sees the
// old or the new text. The file keeps its mode and owner, and a symbolic link
// stays one. Edit creates a missing file, but not its directory. Two concurrent
// edits do not undo each other: the second waits.
//
// A mistake that was there before is an *Error. One that change makes is not:
// it is in no line of any file, and the caller blames its own input.
func Edit(path string, check Check, change func(text string) (string, error)) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("%s: %w", dir.Name(), err)
	}
	old, err := read(path)
	if err != nil {
		return err
	}
	if _, err := Parse(old, check); err != nil {
		return at(path, err) // what is not understood is not edited
	}
	text, err := change(old)
	if err != nil {
		return err
	}
	if _, err := Parse(text, check); err != nil {
		return made(err)
	}
	if text == old {
		return nil
	}
	return replace(path, text, dir)
}

// made says what is wrong with a change: the first mistake of what it would make of
// a file that had none.
func made(err error) error {
	wrong, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	return errors.New(wrong.Problems[0].text())
}

// replace puts text into the place of the file at path, in dir.
func replace(path, text string, dir *os.File) error {
	temp, err := os.CreateTemp(dir.Name(), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) // it fails once it is renamed
	defer temp.Close()
	mode := fs.FileMode(0o644)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
		if sys, ok := info.Sys().(*syscall.Stat_t); ok && (int(sys.Uid) != os.Geteuid() || int(sys.Gid) != os.Getegid()) {
			if err := temp.Chown(int(sys.Uid), int(sys.Gid)); err != nil {
				return err
			}
		}
	}
	if err := temp.Chmod(mode); err != nil {
		return err
	}
	if _, err := temp.WriteString(text); err != nil {
		return err
	}
	if err := errors.Join(temp.Sync(), temp.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return err
	}
	return dir.Sync()
}
