package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"stsmap/doctor"
)

// An ownerError is for a file that the daemon must not use, since it would use it
// in place of its owner.
type ownerError struct {
	path string
	uid  int
}

func (e *ownerError) Error() string {
	name := doctor.UserName(e.uid)
	return fmt.Sprintf("%s belongs to user %s, and the daemon runs as root; run it as that user: runuser -u %s -- stsmap serve", e.path, name, name)
}

// checkOwner returns an [*ownerError] if the file at path, the link that it is, or
// the directory of one of them belongs to another user than uid. It is for root: the
// owner of the directory could have it write to any file by a link, and could
// not use afterwards what root has created there. What does not exist, or cannot
// be looked at, is left to what opens it.
func checkOwner(path string, uid int) error {
	paths := []string{filepath.Dir(path), path}
	if real, err := filepath.EvalSymlinks(path); err == nil && real != path {
		paths = append(paths, filepath.Dir(real), real)
	}
	for _, p := range paths {
		info, err := os.Lstat(p)
		if err != nil {
			continue
		}
		if sys, ok := info.Sys().(*syscall.Stat_t); ok && int(sys.Uid) != uid {
			return &ownerError{p, int(sys.Uid)}
		}
	}
	return nil
}
