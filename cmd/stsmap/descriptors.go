package main

import "syscall"

// maxDescriptors returns how many file descriptors the daemon may have open.
// The Go runtime has raised the soft limit to the hard one.
func maxDescriptors() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024 // what systems without a setting grant
	}
	return limit.Cur
}

// maxLookupConns returns how many connections each of so many sockets for
// lookups serves: together they take at most half of the descriptors. The others
// are for fetches, DNS, the store, and the admin listener.
func maxLookupConns(descriptors uint64, sockets int) int {
	return int(max(1, min(2048, descriptors/2/uint64(max(1, sockets)))))
}

// maxAdminConns returns how many connections the admin listener serves.
func maxAdminConns(descriptors uint64) int {
	return int(max(4, min(64, descriptors/16)))
}
