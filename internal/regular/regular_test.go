package regular

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestReadFile: regular files and links to them are read; anything else, and a
// file that is too large, is refused at once with its path.
func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{"text": "a = 1\n", "empty": "", "binary": "\x7fELF\x00\xff"} {
		if err := os.WriteFile(in(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadFile(in(name)); err != nil || string(got) != text {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if err := errors.Join(os.Symlink("text", in("link")), os.Symlink("fifo", in("linkedfifo")), os.Symlink("loop", in("loop"))); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadFile(in("link")); err != nil || string(got) != "a = 1\n" {
		t.Errorf("link: %q, %v", got, err)
	}
	if err := errors.Join(syscall.Mkfifo(in("fifo"), 0o600), os.Mkdir(in("dir"), 0o700)); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", in("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, name := range []string{"fixed", "sparse"} {
		size := int64(MaxBytes)
		if name == "sparse" {
			size = 1 << 40
		}
		if err := errors.Join(os.WriteFile(in(name), nil, 0o600), os.Truncate(in(name), size)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := ReadFile(in("fixed")); err != nil || !bytes.Equal(got, make([]byte, MaxBytes)) {
		t.Errorf("a file of the largest size: %d bytes, %v", len(got), err)
	}
	for name, want := range map[string]error{
		"fifo": ErrKind, "linkedfifo": ErrKind, "dir": ErrKind, "sparse": ErrTooLarge, "nothing": fs.ErrNotExist, "loop": syscall.ELOOP,
		"socket": syscall.ENXIO, "/dev/zero": ErrKind, "/dev/null": ErrKind,
	} {
		path := name
		if name[0] != '/' {
			path = in(name)
		}
		text, err := ReadFile(path)
		broken, ok := errors.AsType[*fs.PathError](err)
		if text != nil || !errors.Is(err, want) || !ok || broken.Path != path {
			t.Errorf("%s: %d bytes, %v, want %v", name, len(text), err, want)
		}
	}
}
