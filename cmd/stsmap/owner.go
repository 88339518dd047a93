package main

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// An ownerError is for a file that the daemon must not use, since it would use it
// in place of its owner.
type ownerError struct {
	path string
	uid  uint32
}

func (e *ownerError) Error() string {
	name := userName(e.uid)
	return fmt.Sprintf("%s belongs to user %s, and the daemon runs as root; run it as that user: runuser -u %s -- stsmap serve", e.path, name, name)
}

// userName is the name of a user, or the number of one without.
func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// checkOwner returns an [*ownerError] if the file at path, the link that it is, or
// the directory of one of them belongs to another user than uid. It is for root: the
// owner of the directory could have it write to any file by a link, and could
// not use afterwards what root has created there. What does not exist, or cannot
// be looked at, is left to what opens it.
func checkOwner(path string, uid uint32) error {
	paths := []string{filepath.Dir(path), path}
	if real, err := filepath.EvalSymlinks(path); err == nil && real != path {
		paths = append(paths, filepath.Dir(real), real)
	}
	for _, p := range paths {
		info, err := os.Lstat(p)
		if err != nil {
			continue
		}
		if sys, ok := info.Sys().(*syscall.Stat_t); ok && sys.Uid != uid {
			return &ownerError{p, sys.Uid}
		}
	}
	return nil
}
