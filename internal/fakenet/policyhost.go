package fakenet

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// site is an address at which policy hosts are served.
type site struct {
	hosts  map[string]*policyHost // by name, see hostKey
	names  []string               // in the order of the description
	bulks  []*bulk
	mute   bool // connections are accepted, and that is all
	down   bool
	silent bool // nobody answers, see Net.Dial
}

// policyHost is one line of the https section.
type policyHost struct {
	name    string
	cert    certSpec
	maxTLS  uint16 // 0: whatever crypto/tls offers
	needSNI bool   // a handshake without the right name is refused
	failTLS bool   // every handshake is refused
	stall   stage
	delay   time.Duration // of the answer, from the request on
	drip    time.Duration // between two bytes of the body
	shuns   string        // the beginning of a User-Agent that gets status 403
	reset   bool          // the connection, instead of an answer
	cut     bool          // the body ends early
	head    []byte        // of the answer, with the empty line
	body    []byte        // of the answer, as it is on the wire
}

// stage is where a connection stops to make progress.
type stage string

const (
	stallAccept  stage = "accept"
	stallTLS     stage = "tls"
	stallHeaders stage = "headers"
	stallBody    stage = "body"
)

// answer collects what a line says about the HTTP answer.
type answer struct {
	policy   []byte
	status   int
	location string
	mime     string
	headers  []string
	size     int
	chunked  bool
	gzip     bool
}

// host finds the policy host of that name, or nil.
func (s *site) host(name string) *policyHost {
	if h := s.hosts[name]; h != nil {
		return h
	}
	for _, b := range s.bulks {
		if h := b.policyHost(name); h != nil {
			return h
		}
	}
	return nil
}

// greeter is the host that a handshake gets: the one that was named, or else the first of the address,
// as with most servers.
func (s *site) greeter(name string) *policyHost {
	if h := s.host(name); h != nil {
		return h
	}
	if len(s.names) > 0 {
		return s.hosts[s.names[0]]
	}
	return nil
}

// policyAddrs are the addresses of a policy host.
func (w *world) policyAddrs(host string) []netip.Addr {
	var addrs []netip.Addr
	for addr, s := range w.sites {
		if s.host(host) != nil {
			addrs = append(addrs, addr)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs
}

// site finds or makes the site of an address.
func (w *world) site(addr netip.Addr) *site {
	s := w.sites[addr]
	if s == nil {
		s = &site{hosts: make(map[string]*policyHost)}
		w.sites[addr] = s
	}
	return s
}

// policyHost reads a line of the https section.
func (p *parser) policyHost(fields []field) error {
	name, err := fields[0].hostname()
	if err != nil {
		return err
	}
	h := &policyHost{name: name, cert: certSpec{names: name}}
	a := &answer{status: 200, mime: "text/plain"}
	var addrs []netip.Addr
	down, silent := false, false
	for _, f := range fields[1:] {
		switch f.key {
		case "addr":
			var addr netip.Addr
			addr, err = f.addr()
			addrs = append(addrs, addr)
		case "down":
			down = true
		case "silent":
			silent = true
		case "policy":
			body, ok := p.policies[f.value]
			if !ok {
				return fmt.Errorf("no section for policy=%s", f.value)
			}
			a.policy = body
		case "status", "redirect", "type", "notype", "header", "chunked", "gzip", "size":
			err = a.read(f)
		default:
			err = h.read(f)
		}
		if err != nil {
			return err
		}
	}
	if len(addrs) == 0 {
		return errors.New("policy host without addr=")
	}
	if err := a.render(h); err != nil {
		return err
	}
	for _, addr := range addrs {
		s := p.world.site(addr)
		if s.hosts[name] != nil {
			return fmt.Errorf("policy host %s is at %s twice", name, addr)
		}
		s.hosts[name] = h
		s.names = append(s.names, name)
		s.mute = s.mute || h.stall == stallAccept
		s.down = s.down || down
		s.silent = s.silent || silent
	}
	return nil
}

// read takes a word about the connection.
func (h *policyHost) read(f field) (err error) {
	switch f.key {
	case "cert":
		direct := h.cert.direct
		h.cert, err = kindOf(f.value, h.name)
		if h.cert.kind == certNone {
			return errors.New("cert=none is for MX hosts")
		}
		h.cert.direct = direct
	case "direct":
		h.cert.direct = true
	case "tls":
		h.failTLS = f.value == "fail"
		if !h.failTLS {
			h.maxTLS, err = tlsVersion(f.value)
		}
	case "sni":
		h.needSNI = true
		if f.value != "required" {
			return f.unknown()
		}
	case "stall":
		h.stall = stage(f.value)
		if !slices.Contains([]stage{stallAccept, stallTLS, stallHeaders, stallBody}, h.stall) {
			return f.unknown()
		}
	case "delay":
		h.delay, err = f.duration()
	case "drip":
		h.drip, err = f.duration()
	case "shuns":
		h.shuns = f.value
	case "reset":
		h.reset = true
	case "truncate":
		h.cut = true
	default:
		return f.unknown()
	}
	return err
}

func tlsVersion(s string) (uint16, error) {
	switch s {
	case "1.0":
		return tls.VersionTLS10, nil
	case "1.1":
		return tls.VersionTLS11, nil
	case "1.2":
		return tls.VersionTLS12, nil
	case "1.3":
		return tls.VersionTLS13, nil
	}
	return 0, fmt.Errorf("unknown TLS version %q", s)
}

// read takes a word about the answer.
func (a *answer) read(f field) (err error) {
	switch f.key {
	case "status":
		a.status, err = f.number(200, 599)
	case "redirect":
		a.location = f.value
		if a.status == 200 {
			a.status = 302
		}
	case "type":
		a.mime = f.value
	case "notype":
		a.mime = ""
	case "header":
		if !strings.Contains(f.value, ":") {
			return fmt.Errorf("bad header %q", f.value)
		}
		a.headers = append(a.headers, f.value)
	case "chunked":
		a.chunked = true
	case "gzip":
		a.gzip = true
	case "size":
		a.size, err = f.number(1, 1<<24)
	}
	return err
}

// render makes the bytes of the answer. It is done once, so that answering costs nothing.
func (a *answer) render(h *policyHost) error {
	body := a.policy
	if a.size > 0 {
		const key = "x_padding: "
		fill := a.size - len(body) - len(key)
		if fill < 1 {
			return fmt.Errorf("size=%d leaves no room for padding", a.size)
		}
		body = slices.Concat(body, []byte(key), bytes.Repeat([]byte("x"), fill))
	}
	if a.gzip {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write(body) // a bytes.Buffer does not fail
		_ = z.Close()
		body = b.Bytes()
	}
	var head bytes.Buffer
	if a.policy == nil && a.status == 200 {
		a.status = 404
	}
	fmt.Fprintf(&head, "HTTP/1.1 %d Fakenet\r\n", a.status)
	if a.location != "" {
		fmt.Fprintf(&head, "Location: %s\r\n", a.location)
	}
	if a.mime != "" {
		fmt.Fprintf(&head, "Content-Type: %s\r\n", a.mime)
	}
	if a.gzip {
		head.WriteString("Content-Encoding: gzip\r\n")
	}
	for _, line := range a.headers {
		head.WriteString(line + "\r\n")
	}
	switch {
	case a.status == 204 || a.status == 304: // these have no body (RFC 9110, Section 6.4.1)
		body = nil
	case a.chunked:
		head.WriteString("Transfer-Encoding: chunked\r\n")
		body = chunks(body)
	default:
		head.WriteString("Content-Length: " + strconv.Itoa(len(body)) + "\r\n")
	}
	head.WriteString("\r\n")
	h.head, h.body = head.Bytes(), body
	return nil
}

// chunks cuts a body into chunks that are small, so that even a policy has several.
func chunks(body []byte) []byte {
	var b bytes.Buffer
	for c := range slices.Chunk(body, 32) {
		fmt.Fprintf(&b, "%x\r\n%s\r\n", len(c), c)
	}
	b.WriteString("0\r\n\r\n")
	return b.Bytes()
}
