package postconf

import (
	"context"
	"maps"
	"strconv"
	"strings"
)

// A Setup is how one instance of Postfix is configured, as far as it matters to
// mail that goes out by smtp(8).
type Setup struct {
	// Directory is what postconf was given with -c; empty if it was given nothing.
	Directory string
	// Release is mail_version, "3.7.11".
	Release string
	// Services are those of master.cf, in its order.
	Services []Service

	main settings
}

// A Service is a line of master.cf.
type Service struct {
	// Name is as postconf -P has it: "smtp/unix".
	Name string
	// Program is what it runs, "smtp".
	Program string
	// Chroot says that it runs in the queue directory.
	Chroot bool
	// Root says that it keeps the rights of root.
	Root bool
	// Own has the settings of its -o options, by name.
	Own map[string]string

	defaultChroot bool // its column chroot is "-"
}

// ReadSetup asks postconf(1) for the setup of an instance; an empty
// configDirectory is that which postconf finds by itself. Errors are those of
// Detect. It may be called concurrently.
func ReadSetup(ctx context.Context, configDirectory string) (*Setup, error) {
	p := program{directory: configDirectory}
	if err := p.find(); err != nil {
		return nil, err
	}
	s := &Setup{Directory: configDirectory}
	var err error
	// All of them: what somebody wants to know of is not known here, and they
	// are printed as quickly as a few.
	if s.main, err = p.settings(ctx); err != nil {
		return nil, err
	}
	// As for DetectRelease: what it is, and not what main.cf says that it is.
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

// Main returns a setting of main.cf, with what $name stands for, or the default
// of this release; ok is false for a name that it does not know.
func (s *Setup) Main(name string) (value string, ok bool) {
	value, ok = s.main[name]
	return value, ok
}

// Value returns a setting as a service has it. A name that this release does not
// know has none.
func (s *Setup) Value(of Service, name string) string {
	if v, ok := of.Own[name]; ok {
		return v
	}
	return s.main[name]
}

// DNSSECDisabledBy returns the setting that keeps a service from looking up DNSSEC, by its
// name and in words for people, or nothing.
func (s *Setup) DNSSECDisabledBy(of Service) (name, why string) {
	with := maps.Clone(s.main)
	maps.Copy(with, of.Own)
	return with.dnssecDisabledBy()
}

// chrootByDefault says that "-" in the column chroot of master.cf means yes, as it
// did before compatibility_level was 1 (COMPATIBILITY_README).
func (s *Setup) chrootByDefault() bool {
	level, _, _ := strings.Cut(s.main["compatibility_level"], ".")
	n, err := strconv.Atoi(level)
	return err == nil && n < 1
}

// services asks for those of master.cf, with their own settings.
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
