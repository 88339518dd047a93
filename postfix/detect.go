package postfix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// Detected is what a Postfix says of itself.
type Detected struct {
	// DNSSEC says that every smtp(8) of it looks up DNSSEC, so that it can be
	// answered the levels of DANE: without, "dane" is no better than "may",
	// and with "dane-only" mail waits (smtp/smtp_tls_policy.c).
	DNSSEC bool
	// Why tells people what is set where, if DNSSEC is false.
	Why string
}

// ErrNoPostconf means that there is no postconf on this machine: the settings
// of Postfix have to be said by its owner.
var ErrNoPostconf = errors.New("there is no postconf in PATH, /usr/sbin or /usr/local/sbin")

// ErrOddPostconf means that postconf said something that no postconf is known
// to say; who asked can only do as if it had not been asked.
var ErrOddPostconf = errors.New("not understood")

// errTooLong ends a program that does not stop to write.
var errTooLong = errors.New("too much output")

// A PostconfError says that postconf gave no answer. It wraps ErrOddPostconf,
// the error of the context, or what package os/exec says.
type PostconfError struct {
	// Said is the line of its complaint, or the one that is odd. It is empty if
	// it said nothing, and not escaped.
	Said string
	// Err is what is wrong.
	Err error
}

// Error tells what postconf said, and otherwise how it ended.
func (e *PostconfError) Error() string {
	if e.Said == "" {
		return "postconf: " + e.Err.Error()
	}
	if errors.Is(e.Err, ErrOddPostconf) {
		return fmt.Sprintf("postconf: %v: %.100q", e.Err, e.Said)
	}
	return "postconf: " + strings.TrimPrefix(e.Said, "postconf: ")
}

// Unwrap returns Err.
func (e *PostconfError) Unwrap() error { return e.Err }

// DetectRelease asks postconf(1) which release the Postfix of this machine is:
// its mail_version, which ParseRelease reads. An empty configDirectory is that
// which postconf finds by itself; what is in it does not matter, be it wrong.
// Errors are those of Detect. It may be called concurrently.
func DetectRelease(ctx context.Context, configDirectory string) (string, error) {
	p := postconf{directory: configDirectory}
	if err := p.find(); err != nil {
		return "", err
	}
	// Not what main.cf says: a release that somebody wants to hide is still
	// the one that reads our replies.
	out, err := p.ask(ctx, "-d", "mail_version")
	if err != nil {
		return "", err
	}
	name, release, _ := cutSetting(strings.Join(out, "\n"))
	if _, err := ParseRelease(release); err != nil || name != "mail_version" {
		return "", odd(strings.Join(out, "\n"))
	}
	return release, nil
}

// Detect asks postconf(1) whether the Postfix of this machine looks up DNSSEC.
// An empty configDirectory is that which postconf
// finds by itself. An error is ErrNoPostconf or a *PostconfError, and then
// nothing was learned. It may be called concurrently.
func Detect(ctx context.Context, configDirectory string) (Detected, error) {
	p := postconf{directory: configDirectory}
	if err := p.find(); err != nil {
		return Detected{}, err
	}
	// Not "-h", without names: a release that does not know one of them leaves
	// its line out, and the values could no longer be told apart.
	main, err := p.settings(ctx, append([]string{"mail_version"}, daneSettings()...)...)
	if err != nil {
		return Detected{}, err
	}
	if _, err := ParseRelease(main["mail_version"]); err != nil {
		return Detected{}, odd("mail_version = " + main["mail_version"]) // this is no postconf
	}
	var d Detected
	if _, why := main.against(); why != "" {
		d.Why = "main.cf: " + why
		return d, nil
	}
	if d.Why, err = p.exception(ctx, main); err != nil {
		return Detected{}, err
	}
	d.DNSSEC = d.Why == ""
	return d, nil
}

// daneSettings are those that smtp(8) looks at before it does DANE
// (smtp/smtp.c, post_init; smtp/smtp_tls_policy.c, dane_init).
func daneSettings() []string {
	return []string{"smtp_dns_support_level", "disable_dns_lookups", "smtp_host_lookup", "smtp_dns_resolver_options", "ignore_mx_lookup_error"}
}

// settings are values by the name of the parameter.
type settings map[string]string

// against returns the setting that keeps an smtp(8) from doing DANE, by its name
// and in words, or nothing.
func (s settings) against() (name, why string) {
	is := func(name string) (string, string) { return name, name + " = " + s[name] }
	const level, lookup = "smtp_dns_support_level", "smtp_host_lookup"
	_, known := s[level]
	switch {
	case !known:
		return level, level + " is unknown to this release"
	case s[level] == "" && s["disable_dns_lookups"] == "yes":
		return is("disable_dns_lookups")
	case s[level] == "":
		return level, level + " is not set"
	case !strings.EqualFold(s[level], "dnssec"):
		// Words that do not exist are among these: smtp(8) does not start then.
		return is(level)
	case !slices.ContainsFunc(words(s[lookup]), func(w string) bool { return strings.EqualFold(w, "dns") }):
		return is(lookup)
	case len(words(s["smtp_dns_resolver_options"])) > 0:
		return is("smtp_dns_resolver_options")
	case s["ignore_mx_lookup_error"] == "yes":
		return is("ignore_mx_lookup_error")
	}
	return "", ""
}

// words splits a list as Postfix does.
func words(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })
}

// exception returns the setting of a service in master.cf that keeps its
// smtp(8) from doing DANE although main.cf says main. All services ask with
// the same keys, so one is enough to keep the answer from being DANE.
func (p *postconf) exception(ctx context.Context, main settings) (string, error) {
	all, err := p.services(ctx)
	if err != nil {
		return "", err
	}
	for _, s := range all {
		// lmtp(8) is the same program, but has parameters of its own.
		if len(s.Own) == 0 || s.Program != "smtp" {
			continue
		}
		with := maps.Clone(main)
		maps.Copy(with, s.Own)
		if _, why := with.against(); why != "" {
			return fmt.Sprintf("master.cf: %s: %s", s.Name, why), nil
		}
	}
	return "", nil
}

// settings asks for values, with what $name stands for.
func (p *postconf) settings(ctx context.Context, args ...string) (settings, error) {
	out, err := p.ask(ctx, append([]string{"-x"}, args...)...)
	if err != nil {
		return nil, err
	}
	all := make(settings)
	for _, line := range out {
		name, value, ok := cutSetting(line)
		if !ok {
			return nil, odd(line)
		}
		all[name] = value
	}
	return all, nil
}

// cutSetting splits "name = value".
func cutSetting(line string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(line, "=")
	name = strings.TrimSpace(name)
	return name, strings.TrimSpace(value), ok && name != "" && !strings.ContainsAny(name, " \t")
}

func odd(line string) error { return &PostconfError{Said: line, Err: ErrOddPostconf} }

// postconf is the program of that name.
type postconf struct {
	path      string
	directory string
}

// find looks in PATH and, because that of a service can be short, where it
// usually is.
func (p *postconf) find() error {
	for _, name := range []string{"postconf", "/usr/sbin/postconf", "/usr/local/sbin/postconf"} {
		if path, err := exec.LookPath(name); err == nil {
			p.path = path
			return nil
		}
	}
	return ErrNoPostconf
}

// mostOutput is more than any configuration prints, in bytes.
const mostOutput = 1 << 20

// ask runs postconf and returns the lines that it printed.
func (p *postconf) ask(ctx context.Context, args ...string) ([]string, error) {
	if p.directory != "" {
		args = append([]string{"-c", p.directory}, args...)
	}
	var out, complaint bounded
	cmd := exec.CommandContext(ctx, p.path, args...)
	cmd.Args[0] = "postconf" // as it names itself
	cmd.Stdout, cmd.Stderr = &out, &complaint
	// What it may have started must not keep us waiting.
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		switch {
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		case out.over || complaint.over:
			err = errTooLong // and not the signal that it died of
		default:
			return nil, &PostconfError{Said: worst(complaint.buf.String()), Err: err}
		}
		return nil, &PostconfError{Err: err}
	}
	var lines []string
	for line := range strings.Lines(out.buf.String()) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

// worst is the line of a complaint that tells why it ended; warnings that do
// not matter can stand before it.
func worst(complaint string) (first string) {
	for line := range strings.Lines(complaint) {
		line = strings.TrimSpace(line)
		if strings.Contains(line, "fatal:") {
			return line
		}
		if first == "" {
			first = line
		}
	}
	return first
}

// bounded is a buffer that takes no more than mostOutput. It does not embed the
// other: io.Copy would find ReadFrom, which knows no bound.
type bounded struct {
	buf  bytes.Buffer
	over bool // whether there was more
}

// Write fails when there is too much, which ends the program that writes.
func (b *bounded) Write(p []byte) (int, error) {
	if b.buf.Len()+len(p) > mostOutput {
		b.over = true
		return 0, errTooLong
	}
	return b.buf.Write(p)
}
