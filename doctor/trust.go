package doctor

import (
	"context"
	"errors"
	"os"

	"stsmap/postfix/postconf"
)

const (
	caFile = "smtp_tls_CAfile"
	caPath = "smtp_tls_CApath"
)

// checkTrust is LOC-04.
func checkTrust(ctx context.Context, e *exam) []Result {
	return e.eachSetup(mailers, func(s *postconf.Setup, services []postconf.Service) (all []Result) {
		for _, chrooted := range []bool{false, true} {
			var some []postconf.Service
			for _, service := range services {
				if service.Chroot == chrooted {
					some = append(some, service)
				}
			}
			for _, c := range cohorts(s, some, caFile, caPath) {
				all = append(all, e.judgeTrust(ctx, s, c))
			}
		}
		return append(all, e.judgeProxy(ctx, s, services)...)
	})
}

// judgeTrust is about one pair of settings. The file is read before smtp(8)
// enters the chroot and gives up its rights, the directory afterwards, each time
// that a certificate is wanted (tls/tls_certkey.c).
func (e *exam) judgeTrust(ctx context.Context, s *postconf.Setup, c cohort) Result {
	where, file, dir := e.where(s, c.services), c.values[0], c.values[1]
	const why = "no certificate is ever valid: all mail to domains with a policy waits"
	if file == "" && dir == "" {
		return fail("%s%s and %s are empty", where, caFile, caPath).because(why).fix(e.trustLines(s, c)...)
	}
	if file != "" {
		n, err := countCertificates(file)
		switch {
		case errors.Is(err, os.ErrPermission) && os.Geteuid() != 0:
			return skip("%s%s = %s: run it as root", where, caFile, file)
		case err != nil:
			return fail("%s%s = %s: %s", where, caFile, file, reason(err)).
				because("smtp(8) does no TLS at all then, and all mail to domains with a policy waits").fix(e.trustLines(s, c)...)
		case n == 0:
			return fail("%s%s = %s: there is no certificate in it", where, caFile, file).
				because("smtp(8) does no TLS at all then, and all mail to domains with a policy waits").fix(e.trustLines(s, c)...)
		}
		return ok("%s%s = %s has %s", where, caFile, file, authorities(n))
	}
	n, err := e.countAs(ctx, s, c.services[0], dir)
	in := ""
	if c.services[0].Chroot {
		queue, _ := s.Main("queue_directory")
		in = ", in the chroot " + queue
	}
	switch {
	case errors.Is(err, errNotRoot):
		return skip("%s%s = %s%s: run it as root", where, caPath, dir, in)
	case err != nil:
		return fail("%s%s = %s%s: %s", where, caPath, dir, in, reason(err)).because(why).fix(e.trustLines(s, c)...)
	case n == 0:
		return fail("%s%s = %s%s: there is no certificate in it that is named by its hash", where, caPath, dir, in).because(why).fix(e.trustLines(s, c)...)
	}
	return ok("%s%s = %s%s has %s", where, caPath, dir, in, authorities(n))
}

// countAs counts the certificates in a directory as a service sees it.
func (e *exam) countAs(ctx context.Context, s *postconf.Setup, service postconf.Service, dir string) (int, error) {
	queue, _ := s.Main("queue_directory")
	who, err := runsAs(s, service)
	if err != nil {
		return 0, err
	}
	seen, err := e.send(ctx, errand{Directory: queue, Chroot: service.Chroot, UID: who.uid, GID: who.gid, Authority: dir})
	if err == nil && seen.Directory.Text != "" {
		err = errors.New(seen.Directory.Text)
	}
	return seen.Authorities, err
}

// judgeProxy is about tlsproxy(8), which does TLS in place of smtp(8) where
// connections are used again, with a chroot of its own.
func (e *exam) judgeProxy(ctx context.Context, s *postconf.Setup, services []postconf.Service) (all []Result) {
	for _, c := range cohorts(s, services, "smtp_tls_connection_reuse", caFile, caPath) {
		if c.values[0] != "yes" || c.values[1] != "" || c.values[2] == "" {
			continue
		}
		for _, proxy := range running(s, "tlsproxy") {
			if proxy.Chroot == c.services[0].Chroot {
				continue // and seen from there above
			}
			with := c
			with.services = []postconf.Service{proxy}
			with.values = c.values[1:]
			all = append(all, e.judgeTrust(ctx, s, with))
		}
	}
	return all
}

// trustLines have the services trust the authorities that the system comes with.
func (e *exam) trustLines(s *postconf.Setup, c cohort) []string {
	for _, bundle := range bundles() {
		if n, err := countCertificates(bundle); err == nil && n > 0 {
			return set(s, c, caFile, bundle)
		}
	}
	return append([]string{"# install the package ca-certificates"}, set(s, c, caFile, bundles()[0])...)
}

// bundles are where systems have their certification authorities in one file.
func bundles() []string {
	return []string{
		"/etc/ssl/certs/ca-certificates.crt", // Debian, Alpine, Arch
		"/etc/pki/tls/certs/ca-bundle.crt",   // Fedora and its relatives
		"/etc/ssl/ca-bundle.pem",             // SUSE
		"/etc/ssl/cert.pem",                  // BSD
	}
}
