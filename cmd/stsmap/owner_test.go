package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckOwner: a file, a link and a directory of another user are refused with
// the command to type; what does not exist is no reason.
func TestCheckOwner(t *testing.T) {
	dir, me := t.TempDir(), uint32(os.Geteuid())
	file, link, dangling := filepath.Join(dir, "cache.db"), filepath.Join(dir, "link.db"), filepath.Join(dir, "dangling.db")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Symlink(file, link), os.Symlink("nothing", dangling)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link, dangling, filepath.Join(dir, "new.db"), filepath.Join(dir, "nodir", "new.db")} {
		if err := checkOwner(path, me); err != nil {
			t.Errorf("own: %v", err)
		}
	}
	for path, named := range map[string]string{
		file: dir, filepath.Join(dir, "new.db"): dir,
		filepath.Join(dir, "cache.db", "..", "new.db"): dir,
	} {
		err := checkOwner(path, me+1)
		want := named + " belongs to user " + userName(me) + ", and the daemon runs as root; run it as that user: runuser -u " + userName(me) + " -- stsmap serve"
		if foreign, ok := errors.AsType[*ownerError](err); !ok || foreign.path != named || err.Error() != want {
			t.Errorf("another user's: %v, want %s", err, want)
		}
	}
	// What a link leads to counts as well.
	if os.Geteuid() != 0 {
		if err := os.Symlink("/etc/passwd", filepath.Join(dir, "passwd")); err != nil {
			t.Fatal(err)
		}
		if err := checkOwner(filepath.Join(dir, "passwd"), me); err == nil || !strings.HasPrefix(err.Error(), "/etc belongs to user root") {
			t.Errorf("a link to a file of root: %v", err)
		}
	}
}
