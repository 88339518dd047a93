package fakenet

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

// world is what a description says. It does not change once it is parsed, but for the counters of
// !drop and the mail servers, which are running between start and stop.
type world struct {
	*zone
	views   map[netip.Addr]*zone // what single name servers answer instead
	sites   map[netip.Addr]*site
	mxHosts map[netip.Addr]*mxHost
}

// section is a part of the description, with the number of its first line.
type section struct {
	name string
	line int
	data []byte
}

// lines yields the lines that say something, with their numbers.
func (s section) lines() iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		line := s.line
		for text := range strings.Lines(string(s.data)) {
			text = strings.TrimSpace(text)
			if text != "" && !strings.HasPrefix(text, "#") && !yield(line, text) {
				return
			}
			line++
		}
	}
}

// split finds the sections. The archive does not know line numbers, so they are counted here.
func split(description string) []section {
	archive := txtar.Parse([]byte(description))
	line := 1 + bytes.Count(archive.Comment, []byte("\n"))
	var sections []section
	for _, f := range archive.Files {
		sections = append(sections, section{f.Name, line + 1, f.Data})
		line += 1 + bytes.Count(f.Data, []byte("\n"))
	}
	return sections
}

// parse reads a description. Policies are read first, since other sections refer to them.
func (n *Net) parse(description string) (*world, error) {
	p := &parser{
		net:      n,
		policies: make(map[string][]byte),
		world: &world{
			zone:    newZone(),
			views:   make(map[netip.Addr]*zone),
			sites:   make(map[netip.Addr]*site),
			mxHosts: make(map[netip.Addr]*mxHost),
		},
	}
	sections := split(description)
	seen := make(map[string]bool)
	for _, s := range sections {
		if seen[s.name] {
			return nil, atLine(s.line-1, fmt.Errorf("section %q is there twice", s.name))
		}
		seen[s.name] = true
		if err := p.policy(s); err != nil {
			return nil, err
		}
	}
	for _, s := range sections {
		var err error
		switch s.name {
		case "dns":
			err = p.dns(s, p.world.zone)
		case "https":
			err = p.each(s, p.policyHost)
		case "smtp":
			err = p.each(s, p.mxHost)
		case "bulk":
			err = p.each(s, p.bulk)
		default:
			if addr, ok := strings.CutPrefix(s.name, "ns/"); ok {
				err = p.view(s, addr)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	if err := p.finish(); err != nil {
		return nil, err
	}
	return p.world, nil
}

// parser is the state of one parse.
type parser struct {
	net      *Net
	world    *world
	policies map[string][]byte // by the name after the slash
	tlsa     []tlsaRequest     // to be answered when the MX hosts are known
	zone     *zone             // that is being read
}

// policy reads a policy section, and refuses a section that nobody reads.
func (p *parser) policy(s section) error {
	kind, name, _ := strings.Cut(s.name, "/")
	body := s.data
	switch {
	case s.name == "dns" || s.name == "https" || s.name == "smtp" || s.name == "bulk":
		return nil
	case kind == "ns":
		return nil
	case name == "":
		return atLine(s.line-1, fmt.Errorf("unknown section %q", s.name))
	case kind == "policy":
	case kind == "policy-crlf":
		body = bytes.ReplaceAll(body, []byte("\n"), []byte("\r\n"))
	case kind == "policy-quoted":
		text, err := strconv.Unquote(strings.TrimSpace(string(body)))
		if err != nil {
			return atLine(s.line, fmt.Errorf("section %q is not one Go string: %w", s.name, err))
		}
		body = []byte(text)
	default:
		return atLine(s.line-1, fmt.Errorf("unknown section %q", s.name))
	}
	if _, dup := p.policies[name]; dup {
		return atLine(s.line-1, fmt.Errorf("policy %q is there twice", name))
	}
	p.policies[name] = body
	return nil
}

// each reads a section that has one thing a line.
func (p *parser) each(s section, read func([]field) error) error {
	for line, text := range s.lines() {
		fields, err := splitFields(text)
		if err == nil {
			err = read(fields)
		}
		if err != nil {
			return atLine(line, err)
		}
	}
	return nil
}

// atLine says where an error is.
func atLine(line int, err error) error { return fmt.Errorf("line %d: %w", line, err) }

// field is one word of a line: key=value, or a key alone.
type field struct {
	key, value string
}

// splitFields cuts a line at white space. Within double quotes white space counts as text, and a
// backslash protects the next character.
func splitFields(line string) ([]field, error) {
	var fields []field
	var word strings.Builder
	quoted, escaped, some := false, false, false
	end := func() {
		if some {
			key, value, _ := strings.Cut(word.String(), "=")
			fields = append(fields, field{key, value})
		}
		word.Reset()
		some = false
	}
	for _, c := range []byte(line) {
		switch {
		case escaped:
			word.WriteByte(c)
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted, some = !quoted, true
		case !quoted && (c == ' ' || c == '\t'):
			end()
		default:
			word.WriteByte(c)
			some = true
		}
	}
	if quoted {
		return nil, errors.New("quote without end")
	}
	end()
	return fields, nil
}

// unknown is the error for a word that does not belong where it is.
func (f field) unknown() error {
	if f.value == "" {
		return fmt.Errorf("unknown word %q", f.key)
	}
	return fmt.Errorf("unknown word %q", f.key+"="+f.value)
}

// hostname checks the first word of a line.
func (f field) hostname() (string, error) {
	if f.value != "" || !strings.Contains(f.key, ".") {
		return "", fmt.Errorf("line begins with %q, not with a host name", f.key)
	}
	return hostKey(f.key), nil
}

func (f field) addr() (netip.Addr, error) {
	a, err := netip.ParseAddr(f.value)
	if err != nil {
		return a, fmt.Errorf("bad address %q", f.value)
	}
	return a.Unmap(), nil
}

func (f field) duration() (time.Duration, error) {
	d, err := time.ParseDuration(f.value)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("bad time in %s=%s", f.key, f.value)
	}
	return d, nil
}

func (f field) number(low, high int) (int, error) {
	i, err := strconv.Atoi(f.value)
	if err != nil || i < low || i > high {
		return 0, fmt.Errorf("%s=%s is not a number from %d to %d", f.key, f.value, low, high)
	}
	return i, nil
}

// endpoints yields all that has to be listened to.
func (w *world) endpoints() iter.Seq[endpoint] {
	return func(yield func(endpoint) bool) {
		for addr := range w.views {
			if !yield(endpoint{dnsTCP, addr}) {
				return
			}
		}
		for addr, s := range w.sites {
			if !s.down && !yield(endpoint{https, addr}) {
				return
			}
		}
		for addr, x := range w.mxHosts {
			if !x.down && !yield(endpoint{smtp25, addr}) {
				return
			}
		}
	}
}

// silent reports whether nobody answers at an endpoint, not even that nobody is
// there.
func (w *world) silent(at endpoint) bool {
	switch at.service {
	case https:
		return w.sites[at.addr] != nil && w.sites[at.addr].silent
	case smtp25:
		return w.mxHosts[at.addr] != nil && w.mxHosts[at.addr].silent
	}
	return false
}

// knows reports whether the world has something at an endpoint, be it down.
func (w *world) knows(at endpoint) bool {
	switch at.service {
	case https:
		return w.sites[at.addr] != nil
	case smtp25:
		return w.mxHosts[at.addr] != nil
	}
	return false
}
