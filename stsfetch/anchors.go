package stsfetch

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"stsmap/internal/regular"
)

// checkAnchors is how often Pool looks whether the files have changed.
const checkAnchors = 10 * time.Second

// Anchors are trust anchors for policy hosts, read from files, and read again when
// these change. They may be used concurrently.
//
// Package crypto/x509 reads those of the system once a process: a daemon that runs
// for months would refuse new authorities, and accept those that were removed.
type Anchors struct {
	places func() (files, dirs []string)
	report func(AnchorsRead)
	// turn is held by the goroutine that reads the files.
	turn chan struct{}

	mu      sync.Mutex
	pool    *x509.CertPool // nil before the first read
	count   int            // certificates in pool
	bundle  string         // the file that pool was read from; empty if there was none
	stamp   string         // of the files when they were read
	checked time.Time      // when stamp was last compared
	last    string         // the last AnchorsRead that was reported, as text
}

// An AnchorsRead is what came of reading trust anchors.
type AnchorsRead struct {
	// Count is how many certificates are trusted now.
	Count int
	// Skipped has an error for each certificate in a file of FileAnchors that is not
	// used, such as "certificate 2: negative serial number".
	Skipped []error
	// Err is why the anchors that were read before are still used, or why there are
	// none; nil if the files were read.
	Err error
}

// FileAnchors returns the anchors in the PEM file at path, which are read at once. An
// error means that the file cannot be read or that nothing in it can be used. Report is
// called like that of SystemAnchors.
func FileAnchors(path string, report func(AnchorsRead)) (*Anchors, error) {
	a := newAnchors(func() ([]string, []string) { return []string{path}, nil }, nil)
	read := a.Reload()
	if read.Err != nil {
		return nil, read.Err
	}
	if report != nil {
		a.report = report
		report(read)
	}
	return a, nil
}

// SystemAnchors returns the anchors of the system, from the same files as package
// crypto/x509, and as SSL_CERT_FILE and SSL_CERT_DIR say. They are read when they are
// first needed.
//
// A bundle that is empty or cannot be read later does not replace what was read
// before. Report is called after each read whose result differs from that of the last
// one, and so once for a failure that lasts; nil means that it is not called.
func SystemAnchors(report func(AnchorsRead)) *Anchors {
	return newAnchors(systemPlaces, report)
}

// fixedAnchors returns anchors that never change.
func fixedAnchors(pool *x509.CertPool) *Anchors {
	return &Anchors{pool: pool, count: 1}
}

func newAnchors(places func() (files, dirs []string), report func(AnchorsRead)) *Anchors {
	if report == nil {
		report = func(AnchorsRead) {}
	}
	return &Anchors{places: places, report: report, turn: make(chan struct{}, 1)}
}

// systemPlaces returns where a Linux system can have its trust anchors: files, of which
// the first that can be read is used, and directories.
func systemPlaces() (files, dirs []string) {
	files = []string{
		"/etc/ssl/certs/ca-certificates.crt",                // Debian, Gentoo, Arch
		"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora
		"/etc/ssl/ca-bundle.pem",                            // openSUSE
		"/etc/pki/tls/cacert.pem",                           // OpenELEC
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL
		"/etc/ssl/cert.pem",                                 // Alpine
	}
	dirs = []string{"/etc/ssl/certs", "/etc/pki/tls/certs"}
	if file := os.Getenv("SSL_CERT_FILE"); file != "" {
		files = []string{file}
	}
	if list := os.Getenv("SSL_CERT_DIR"); list != "" {
		dirs = strings.Split(list, ":")
	}
	return files, dirs
}

// Pool returns the anchors. They are read again if their files have changed; that is
// noticed within ten seconds.
func (a *Anchors) Pool() *x509.CertPool {
	a.mu.Lock()
	pool, due := a.pool, a.places != nil && time.Since(a.checked) >= checkAnchors
	a.mu.Unlock()
	switch {
	case pool == nil:
		a.turn <- struct{}{}
	case !due:
		return pool
	default:
		select {
		case a.turn <- struct{}{}:
		default:
			return pool // another goroutine compares
		}
	}
	defer func() { <-a.turn }()
	a.readIfChanged()
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pool
}

// Reload reads the files again, whether they have changed or not, and returns the
// result.
func (a *Anchors) Reload() AnchorsRead {
	a.turn <- struct{}{}
	defer func() { <-a.turn }()
	return a.read(a.newStamp())
}

// empty reports whether there are no anchors.
func (a *Anchors) empty() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count == 0
}

// readIfChanged reads the files if they are others than at the last read. Its caller
// has the turn.
func (a *Anchors) readIfChanged() {
	stamp := a.newStamp()
	a.mu.Lock()
	changed := a.pool == nil || stamp != a.stamp
	a.checked = time.Now()
	a.mu.Unlock()
	if changed {
		a.read(stamp)
	}
}

// newStamp returns a text that changes when the files do.
func (a *Anchors) newStamp() string {
	files, dirs := a.places()
	var b strings.Builder
	for _, path := range append(files, dirs...) {
		info, err := os.Stat(path)
		if err != nil {
			fmt.Fprintf(&b, "%s: %v\n", path, err)
			continue
		}
		fmt.Fprintf(&b, "%s: %d %d", path, info.Size(), info.ModTime().UnixNano())
		if s, ok := info.Sys().(*syscall.Stat_t); ok {
			fmt.Fprintf(&b, " %d %d", s.Ino, s.Ctim.Nano()) // also of another owner or mode
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// read reads the files, whose stamp was taken before, and replaces the anchors unless
// that fails. Its caller has the turn.
func (a *Anchors) read(stamp string) AnchorsRead {
	found := bundleReader{pool: x509.NewCertPool(), seen: make(map[string]bool)}
	files, dirs := a.places()
	bundle, bundleErr := found.firstFile(files)
	result := AnchorsRead{Skipped: found.skipped}
	for _, dir := range dirs {
		found.directory(dir)
	}
	if len(dirs) > 0 {
		result.Skipped = nil // the administrator did not choose these
	}

	a.mu.Lock()
	a.stamp, a.checked = stamp, time.Now()
	switch {
	case bundleErr != nil && (a.bundle != "" || len(dirs) == 0):
		// The directories may have the rest of the last bundle.
		result.Err = bundleErr
	case found.count == 0:
		result.Err = fmt.Errorf("no certificate found in %s", strings.Join(append(files, dirs...), ", "))
	default:
		a.pool, a.count, a.bundle = found.pool, found.count, bundle
	}
	if a.pool == nil {
		a.pool = found.pool
	}
	result.Count = a.count
	text := fmt.Sprint(result)
	isNew := text != a.last
	a.last = text
	a.mu.Unlock()
	if isNew {
		a.report(result)
	}
	return result
}

// A bundleReader collects certificates.
type bundleReader struct {
	pool    *x509.CertPool
	count   int
	seen    map[string]bool // by DER
	skipped []error
}

// firstFile reads the first of files that can be read, and returns its path. An error
// means that there is none, or that it has no certificate.
func (r *bundleReader) firstFile(files []string) (path string, err error) {
	for _, path := range files {
		data, readErr := regular.ReadFile(path)
		if readErr != nil {
			if err == nil {
				err = readErr
			}
			continue
		}
		r.pem(string(data))
		switch {
		case r.count == 0 && len(r.skipped) > 0:
			return "", fmt.Errorf("%s: no certificate in it can be used: %w", path, errors.Join(r.skipped...))
		case r.count == 0:
			return "", fmt.Errorf("%s: no certificate in it; PEM is needed", path)
		}
		return path, nil
	}
	return "", err
}

// directory reads every file in dir. Links within it are other names for the same.
func (r *bundleReader) directory(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if entry.Type()&fs.ModeSymlink != 0 {
			if target, err := os.Readlink(path); err != nil || !strings.Contains(target, "/") {
				continue
			}
		}
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			continue // a device or a pipe would hold up the read
		}
		if data, err := regular.ReadFile(path); err == nil {
			r.pem(string(data))
		}
	}
}
