package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"stsmap/doctor"
)

// TestCheckOwner: a file, a link and a directory of another user are refused with
// the command to type; what does not exist is no reason.
func TestCheckOwner(t *testing.T) {
	dir, me := t.TempDir(), os.Geteuid()
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
		want := named + " belongs to user " + doctor.UserName(me) + ", and the daemon runs as root; run it as that user: runuser -u " + doctor.UserName(me) + " -- stsmap serve"
		if foreign, ok := errors.AsType[*ownerError](err); !ok || foreign.path != named || err.Error() != want {
			t.Errorf("another user's: %v, want %s", err, want)
		}
	}
	// What a link leads to counts as well: /etc is root's, and root can give away a
	// directory.
	target := "/etc/passwd"
	if me == 0 {
		foreign := t.TempDir()
		target = filepath.Join(foreign, "cache.db")
		if err := errors.Join(os.WriteFile(target, nil, 0o600), os.Chown(foreign, 1, 1)); err != nil {
			t.Fatal(err)
		}
	}
	away := filepath.Join(dir, "away.db")
	if err := os.Symlink(target, away); err != nil {
		t.Fatal(err)
	}
	if err := checkOwner(away, me); err == nil || !strings.HasPrefix(err.Error(), filepath.Dir(target)+" belongs to user ") {
		t.Errorf("a link to another user's directory: %v", err)
	}
}
