package fakenet

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// site is an address at which policy hosts are served.
type site struct {
	hosts      map[string]*policyHost // by name, see hostKey
	names      []string               // in the order of the description
	bulks      []*bulk
	acceptOnly bool // nothing follows after a connection is accepted
}

// policyHost is one line of the https section.
type policyHost struct {
	name           string
	cert           certSpec
	maxTLS         uint16 // 0: the highest of crypto/tls
	needSNI        bool   // a handshake without the right name is refused
	failTLS        bool   // every handshake is refused
	stall          stage
	delay          time.Duration // between request and response
	drip           time.Duration // before each byte of the body
	blockUserAgent string        // the beginning of a User-Agent that gets status 403
	reset          bool          // the connection, instead of a response
	truncate       bool          // the body ends early
	status         int
	header         http.Header
	body           []byte // nil: there is no policy
	chunked        bool
}

// newPolicyHost returns a policy host with a good certificate and the body of a policy.
func newPolicyHost(name string, body []byte) *policyHost {
	return &policyHost{
		name:   name,
		cert:   certSpec{names: name},
		status: http.StatusOK,
		header: http.Header{"Content-Type": {"text/plain"}},
		body:   body,
	}
}

// stage is where a connection stops to make progress.
type stage string

const (
	stallAccept  stage = "accept"
	stallTLS     stage = "tls"
	stallHeaders stage = "headers"
	stallBody    stage = "body"
)

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

// hostForSNI returns the host that a handshake gets: the one with that name, or else the first of the
// address, as with most servers; nil if there is none.
func (s *site) hostForSNI(name string) *policyHost {
	if h := s.host(name); h != nil {
		return h
	}
	if len(s.names) > 0 {
		return s.hosts[s.names[0]]
	}
	return nil
}

// site finds or makes the site of an address.
func (w *world) site(addr netip.Addr) *site {
	s := w.sites[addr]
	if s == nil {
		s = &site{hosts: make(map[string]*policyHost)}
		w.sites[addr] = s
		w.place(endpoint{https, addr})
	}
	return s
}

// policyHost reads a line of the https section.
func (p *parser) policyHost(fields []field) error {
	name, err := fields[0].hostname()
	if err != nil {
		return err
	}
	addrs, fields, err := p.world.hostPlaces(https, fields[1:])
	if err != nil {
		return err
	}
	h := newPolicyHost(name, nil)
	var size int
	var compress bool
	for _, f := range fields {
		switch f.key {
		case "policy":
			var ok bool
			if h.body, ok = p.policies[f.value]; !ok {
				return fmt.Errorf("no section for policy=%s", f.value)
			}
		case "size":
			size, err = f.number(1, 1<<24)
		case "gzip":
			compress = true
		case "status", "redirect", "type", "notype", "header", "chunked", "drip", "truncate":
			err = h.readResponse(f)
		default:
			err = h.readConnection(f)
		}
		if err != nil {
			return err
		}
	}
	if err := h.finish(size, compress); err != nil {
		return err
	}
	for _, addr := range addrs {
		s := p.world.site(addr)
		if s.hosts[name] != nil {
			return fmt.Errorf("policy host %s is at %s twice", name, addr)
		}
		s.hosts[name] = h
		s.names = append(s.names, name)
		s.acceptOnly = s.acceptOnly || h.stall == stallAccept
	}
	return nil
}

// readConnection reads a word about the connection.
func (h *policyHost) readConnection(f field) (err error) {
	switch f.key {
	case "cert":
		if err = h.cert.read(f.value, h.name); h.cert.kind == certNone {
			return errors.New("cert=none is for MX hosts")
		}
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
	case "shuns":
		h.blockUserAgent = f.value
	case "reset":
		h.reset = true
	default:
		return f.unknown()
	}
	return err
}

func tlsVersion(s string) (uint16, error) {
	for v := uint16(tls.VersionTLS10); v <= tls.VersionTLS13; v++ {
		if tls.VersionName(v) == "TLS "+s {
			return v, nil
		}
	}
	return 0, fmt.Errorf("unknown TLS version %q", s)
}

// readResponse reads a word about the response.
func (h *policyHost) readResponse(f field) (err error) {
	switch f.key {
	case "status":
		h.status, err = f.number(200, 599)
	case "redirect":
		h.header.Set("Location", f.value)
		if h.status == http.StatusOK {
			h.status = http.StatusFound
		}
	case "type":
		h.header.Set("Content-Type", f.value)
	case "notype":
		h.header["Content-Type"] = nil // nor is one guessed
	case "header":
		key, value, ok := strings.Cut(f.value, ":")
		if !ok {
			return fmt.Errorf("bad header %q", f.value)
		}
		h.header.Add(key, strings.TrimSpace(value))
	case "chunked":
		h.chunked = true
	case "drip":
		h.drip, err = f.duration()
	case "truncate":
		h.truncate = true
	}
	return err
}

// finish completes the response, once the line is read: a body of size bytes, if that is not 0, and
// compressed, if that is wanted.
func (h *policyHost) finish(size int, compress bool) error {
	if h.body == nil && h.status == http.StatusOK {
		h.status = http.StatusNotFound
	}
	if size > 0 {
		const key = "x_padding: "
		fill := size - len(h.body) - len(key)
		if fill < 1 {
			return fmt.Errorf("size=%d leaves no room for padding", size)
		}
		h.body = slices.Concat(h.body, []byte(key), bytes.Repeat([]byte("x"), fill))
	}
	if compress {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write(h.body) // a bytes.Buffer does not fail
		_ = z.Close()
		h.body = b.Bytes()
		h.header["Content-Encoding"] = slices.Insert(h.header["Content-Encoding"], 0, "gzip")
	}
	return nil
}
