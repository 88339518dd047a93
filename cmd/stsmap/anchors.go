package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"

	"stsmap/stsfetch"
)

// trustAnchors returns the trust anchors for policy hosts: those of fetch.ca_file, or
// those of the system if path is empty.
func trustAnchors(path string) (*stsfetch.Anchors, error) {
	if path == "" {
		return stsfetch.SystemAnchors(nil), nil
	}
	return fileAnchors("fetch.ca_file", path, nil)
}

// resolverRoots returns the trust anchors of dns.ca_file, or nil, which means those
// of the system, if path is empty.
func resolverRoots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	anchors, err := fileAnchors("dns.ca_file", path, nil)
	if err != nil {
		return nil, err
	}
	return anchors.Pool(), nil
}

// fileAnchors returns the trust anchors in the file that a key of the configuration
// names.
func fileAnchors(key, path string, report func(stsfetch.AnchorsRead)) (*stsfetch.Anchors, error) {
	anchors, err := stsfetch.FileAnchors(path, report)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, &failure{code: exitPermission, err: fmt.Errorf("%s: %w", key, err)}
	case err != nil:
		return nil, &failure{code: exitConfig, err: fmt.Errorf("%s: %w", key, err)}
	}
	return anchors, nil
}

// anchorsRead logs that trust anchors were read, or why not.
func (d *daemon) anchorsRead(read stsfetch.AnchorsRead) {
	for _, err := range read.Skipped {
		d.log.Warn("certificate of fetch.ca_file ignored", "error", err.Error())
	}
	switch {
	case read.Err == nil:
		d.log.Info("trust anchors read", "count", read.Count)
	case read.Count == 0:
		d.log.Error("no trust anchors, no policy can be fetched", "error", read.Err.Error())
	default:
		d.log.Error("trust anchors not read, the last ones stay in force", "error", read.Err.Error(), "count", read.Count)
	}
}
