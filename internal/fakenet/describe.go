package fakenet

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

// world is what a description says. It does not change once it is parsed, but for the counters of !drop.
type world struct {
	*zone
	views   map[netip.Addr]*zone // what single name servers answer instead
	sites   map[netip.Addr]*site
	mxHosts map[netip.Addr]*mxHost
	places  map[endpoint]*place
}

// place is an endpoint of the world.
type place struct {
	down   bool // connections are refused
	silent bool // no response to a connection, see Net.Dial
}

// section is a part of the description, with the number of its first line.
type section struct {
	name string
	line int
	data []byte
}

// lines yields the lines that are neither blank nor comments, with their numbers.
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

// split finds the sections. The archive has no line numbers, so they are counted here.
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
			places:  make(map[endpoint]*place),
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
	for addr := range p.world.views {
		p.world.place(endpoint{dnsTCP, addr})
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

// policy reads a policy section, and refuses unknown sections.
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

// each reads a section with one item per line.
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

// atLine adds the line to an error.
func atLine(line int, err error) error { return fmt.Errorf("line %d: %w", line, err) }

// field is one word of a line: key=value, or a key alone.
type field struct {
	key, value string
}

// splitFields cuts a line at white space. Within double quotes white space counts as text, and a
// backslash protects a quote or a backslash.
func splitFields(line string) ([]field, error) {
	words := regexp.MustCompile(`(?:[^\s"]|"(?:[^"\\]|\\.)*")+|"`).FindAllString(line, -1)
	if slices.Contains(words, `"`) {
		return nil, errors.New("quote without end")
	}
	unquote := strings.NewReplacer(`\"`, `"`, `\\`, `\`, `"`, ``)
	var fields []field
	for _, word := range words {
		key, value, _ := strings.Cut(unquote.Replace(word), "=")
		fields = append(fields, field{key, value})
	}
	return fields, nil
}

// unknown is the error for an unknown word.
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

// place finds or makes what the world has at an endpoint.
func (w *world) place(at endpoint) *place {
	p := w.places[at]
	if p == nil {
		p = new(place)
		w.places[at] = p
	}
	return p
}

// hostPlaces reads those words of a line for a policy host or MX host that say where it is, and returns
// the others.
func (w *world) hostPlaces(s service, fields []field) (addrs []netip.Addr, others []field, err error) {
	var down, silent bool
	for _, f := range fields {
		switch f.key {
		case "addr":
			addr, err := f.addr()
			if err != nil {
				return nil, nil, err
			}
			addrs = append(addrs, addr)
		case "down":
			down = true
		case "silent":
			silent = true
		default:
			others = append(others, f)
		}
	}
	for _, addr := range addrs {
		p := w.place(endpoint{s, addr})
		p.down, p.silent = p.down || down, p.silent || silent
	}
	if len(addrs) == 0 {
		return nil, nil, errors.New("host without addr=")
	}
	return addrs, others, nil
}

// addrsOf returns the addresses in hosts for which is is true, in order.
func addrsOf[T any](hosts map[netip.Addr]T, is func(T) bool) []netip.Addr {
	var addrs []netip.Addr
	for addr, h := range hosts {
		if is(h) {
			addrs = append(addrs, addr)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs
}
