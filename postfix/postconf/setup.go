package postconf

import (
	"context"
	"maps"
	"strconv"
	"strings"
)

// A Setup is the configuration of one instance of Postfix, as far as it concerns
// outbound mail.
type Setup struct {
	// Directory is the option -c of postconf; empty means its default.
	Directory string
	// Release is mail_version, "3.7.11".
	Release string
	// Services are those of master.cf, in the same order.
	Services []Service

	main settings
}

// A Service is a line of master.cf.
type Service struct {
	// Name is in the form of postconf -P: "smtp/unix".
	Name string
	// Program is the command, "smtp".
	Program string
	// Chroot reports whether it is confined to the queue directory.
	Chroot bool
	// Root reports whether it keeps the privileges of root.
	Root bool
	// Own has the settings of its -o options, by parameter name.
	Own map[string]string

	defaultChroot bool // the column chroot is "-"
}

// ReadSetup reads the configuration of an instance; an empty configDirectory is the
// default of postconf. Errors are those of Detect. It may be called concurrently.
func ReadSetup(ctx context.Context, configDirectory string) (*Setup, error) {
	p := program{directory: configDirectory}
	if err := p.find(); err != nil {
		return nil, err
	}
	s := &Setup{Directory: configDirectory}
	var err error
	// All parameters: which ones the caller needs is not known here, and postconf
	// prints all as quickly as a few.
	if s.main, err = p.settings(ctx); err != nil {
		return nil, err
	}
	// The compiled-in value, not that of main.cf.
	if s.Release, err = DetectRelease(ctx, configDirectory); err != nil {
		return nil, err
	}
	if s.Services, err = p.services(ctx); err != nil {
		return nil, err
	}
	for i, line := range s.Services {
		s.Services[i].Chroot = line.Chroot || line.defaultChroot && s.chrootByDefault()
	}
	return s, nil
}

// Main returns the value of a parameter in main.cf, or its default, with $name
// expanded; ok is false for a parameter that this release does not know.
func (s *Setup) Main(name string) (value string, ok bool) {
	value, ok = s.main[name]
	return value, ok
}

// Value returns the value of a parameter for a service; empty for a parameter that
// this release does not know.
func (s *Setup) Value(of Service, name string) string {
	if v, ok := of.Own[name]; ok {
		return v
	}
	return s.main[name]
}

// DNSSECDisabledBy returns the parameter that keeps a service from looking up
// DNSSEC, and its setting for people; both are empty if none does.
func (s *Setup) DNSSECDisabledBy(of Service) (name, why string) {
	with := maps.Clone(s.main)
	maps.Copy(with, of.Own)
	return with.dnssecDisabledBy()
}

// chrootByDefault reports whether "-" in the column chroot of master.cf means yes:
// below compatibility_level 1 (COMPATIBILITY_README).
func (s *Setup) chrootByDefault() bool {
	level, _, _ := strings.Cut(s.main["compatibility_level"], ".")
	n, err := strconv.Atoi(level)
	return err == nil && n < 1
}

// services returns the services of master.cf, with their own settings.
func (p *program) services(ctx context.Context) ([]Service, error) {
	lines, err := p.ask(ctx, "-M")
	if err != nil {
		return nil, err
	}
	overrides, err := p.settings(ctx, "-P")
	if err != nil {
		return nil, err
	}
	own := make(map[string]settings) // by "name/type"
	for key, value := range overrides {
		slash := strings.LastIndexByte(key, '/')
		if slash < 0 {
			return nil, unexpected(key + " = " + value)
		}
		service, name := key[:slash], key[slash+1:]
		if own[service] == nil {
			own[service] = make(settings)
		}
		own[service][name] = value
	}
	var all []Service
	for _, line := range lines {
		const columns = 8 // name, type, private, unpriv, chroot, wakeup, maxproc, command
		f := strings.Fields(line)
		if len(f) < columns {
			return nil, unexpected(line)
		}
		name := f[0] + "/" + f[1]
		all = append(all, Service{
			Name: name, Program: f[columns-1], Root: f[3] == "n", Chroot: f[4] == "y", defaultChroot: f[4] == "-", Own: own[name],
		})
	}
	return all, nil
}
