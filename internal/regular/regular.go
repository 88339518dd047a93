// Package regular reads the files of the administrator: the configuration, the
// overrides, trust anchors.
//
// It does not parse them. It does not wait for a program that writes to a pipe,
// and does not fill the memory with a file that was named by mistake.
package regular

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// MaxBytes is how large a file may be. Overrides for 100,000 domains are some 8
// MB.
const MaxBytes = 32 << 20

// ErrKind is the error for something that is neither a regular file nor a link to
// one, such as a directory or a named pipe.
var ErrKind = errors.New("not a regular file")

// ErrTooLarge is the error for a file of more than [MaxBytes].
var ErrTooLarge = fmt.Errorf("larger than %d MB", MaxBytes>>20)

// ReadFile reads the file at path, as [os.ReadFile] does, if it is a regular one
// and not too large. Its errors are [*fs.PathError]; errors.Is finds ErrKind,
// ErrTooLarge and those of package fs. It never waits for a writer, but a file
// system may let it wait for as long as it likes.
func ReadFile(path string) ([]byte, error) {
	// Opening a named pipe without a writer would block.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, &fs.PathError{Op: "read", Path: path, Err: ErrKind}
	}
	text, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err == nil && len(text) > MaxBytes {
		return nil, &fs.PathError{Op: "read", Path: path, Err: ErrTooLarge}
	}
	return text, err
}
