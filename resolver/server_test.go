package resolver

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// A testServer is a recursive resolver on loopback that knows one zone, and may misbehave. A line of
// its script is a record, or "@" and a trick (testdata/README).
type testServer struct {
	name, addr string
	zone       []dns.RR

	mu     sync.Mutex
	tricks []*trick
	log    []string
}

type trick struct {
	verb string
	args []string
	left int // how many questions it is still played on; -1: all
}

// tricks maps what a server can do wrong to the number of arguments before an optional count.
func trickArgs(verb string) (int, bool) {
	switch verb {
	case "silent", "drops-edns", "truncate", "notcp", "tcp-closes", "tcp-silent", "tcp-truncated", "ad", "bare", "reverse", "upper", "nosoa", "nxdomain", "badvers", "opt":
		return 0, true
	case "rcode", "fails", "silent-for", "delay", "owner", "opt-in", "ad-for", "refusal", "no-edns", "before", "instead", "tcp-instead":
		return 1, true
	case "ede":
		return 2, true
	}
	return 0, false
}

func parseTrick(line string) (*trick, error) {
	f := strings.Fields(line)
	n, ok := trickArgs(f[0])
	if !ok || len(f) < 1+n || len(f) > 2+n {
		return nil, fmt.Errorf("trick %q", line)
	}
	t := &trick{verb: f[0], args: f[1 : 1+n], left: -1}
	if len(f) == 2+n {
		var err error
		if t.left, err = strconv.Atoi(f[1+n]); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// startServer starts a server that ends with the test.
func startServer(t testing.TB, name, script string) *testServer {
	t.Helper()
	s := &testServer{name: name}
	for line := range strings.Lines(script) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '@':
			tr, err := parseTrick(line[1:])
			if err != nil {
				t.Fatal(err)
			}
			s.tricks = append(s.tricks, tr)
		default:
			rr, err := dns.NewRR(line)
			if err != nil {
				t.Fatal(err)
			}
			s.zone = append(s.zone, rr)
		}
	}
	pc, l := listenBoth(t)
	s.addr = pc.LocalAddr().String()
	s.run(t, &dns.Server{PacketConn: pc, Net: "udp"})
	if s.plays("notcp") != nil {
		l.Close()
	} else {
		s.run(t, &dns.Server{Listener: l, Net: "tcp"})
	}
	return s
}

// listenBoth listens on a port that is free for UDP and TCP.
func listenBoth(t testing.TB) (net.PacketConn, net.Listener) {
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pc, err := net.ListenPacket("udp", l.Addr().String())
		if err == nil {
			return pc, l
		}
		l.Close()
	}
	t.Fatal("no port is free for UDP and TCP")
	return nil, nil
}

// startTLS makes s answer over TLS too, and returns the address.
func (s *testServer) startTLS(t testing.TB, cert tls.Certificate) string {
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	s.run(t, &dns.Server{Listener: l, Net: "tcp-tls"})
	return l.Addr().String()
}

func (s *testServer) run(t testing.TB, srv *dns.Server) {
	started := make(chan struct{})
	var wg sync.WaitGroup
	if srv.Handler == nil {
		srv.Handler = s
	}
	srv.NotifyStartedFunc = func() { close(started) }
	wg.Go(func() {
		if err := srv.ActivateAndServe(); err != nil {
			t.Errorf("server %s: %v", s.name, err)
		}
	})
	<-started
	t.Cleanup(func() {
		srv.ShutdownContext(context.WithoutCancel(t.Context()))
		wg.Wait()
	})
}

// plays returns the trick if it is to be played now.
func (s *testServer) plays(verb string) *trick {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, tr := range s.tricks {
		if tr.verb == verb && tr.left != 0 {
			if tr.left > 0 {
				tr.left--
			}
			return tr
		}
	}
	return nil
}

// singles reports whether the type or the name in the question is one that such a trick is about.
func (s *testServer) singles(verb string, q dns.Question) bool {
	return slices.ContainsFunc(s.tricks, func(tr *trick) bool {
		return tr.verb == verb && (tr.args[0] == q.Name || tr.args[0] == dns.TypeToString[q.Qtype])
	})
}

func (s *testServer) queries() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

func (s *testServer) ServeDNS(w dns.ResponseWriter, req *dns.Msg) {
	network := w.LocalAddr().Network()
	s.mu.Lock()
	s.log = append(s.log, s.name+" "+network+" "+describe(req))
	s.mu.Unlock()
	if tr := s.plays("delay"); tr != nil {
		d, _ := time.ParseDuration(tr.args[0])
		time.Sleep(d)
	} else if s.plays("silent") != nil || s.singles("silent-for", req.Question[0]) || req.IsEdns0() != nil && s.plays("drops-edns") != nil {
		return
	}
	if network == "tcp" {
		if s.plays("tcp-silent") != nil {
			return
		}
		if s.plays("tcp-closes") != nil {
			w.Close()
			return
		}
		if tr := s.plays("tcp-instead"); tr != nil {
			w.Write(wrong(req, tr.args[0]))
			return
		}
	}
	if network == "udp" {
		for tr := s.plays("before"); tr != nil; tr = nil {
			w.Write(wrong(req, tr.args[0]))
		}
		if tr := s.plays("instead"); tr != nil {
			w.Write(wrong(req, tr.args[0]))
			return
		}
		if s.plays("truncate") != nil {
			m := new(dns.Msg).SetReply(req)
			m.Truncated = true
			w.WriteMsg(m)
			return
		}
	}
	w.WriteMsg(s.respond(req, network))
}

// respond makes the response, perhaps with a response code that is a trick.
func (s *testServer) respond(req *dns.Msg, network string) *dns.Msg {
	m := new(dns.Msg).SetReply(req)
	m.RecursionAvailable = true
	if tr := s.plays("rcode"); tr != nil {
		m.Rcode = dns.StringToRcode[tr.args[0]]
		m.SetEdns0(1232, false)
		for _, ede := range s.tricks {
			if ede.verb == "ede" {
				code, _ := strconv.Atoi(ede.args[0])
				m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_EDE{InfoCode: uint16(code), ExtraText: ede.args[1]})
			}
		}
		return m
	}
	if s.singles("fails", req.Question[0]) {
		m.Rcode = dns.RcodeServerFailure
		return m
	}
	if tr := s.plays("refusal"); tr != nil {
		m.Rcode, m.Question = dns.StringToRcode[tr.args[0]], nil
		return m
	}
	if req.IsEdns0() != nil {
		if tr := s.plays("no-edns"); tr != nil {
			m.Rcode = dns.StringToRcode[tr.args[0]]
			return m
		}
		if s.plays("badvers") != nil {
			m.SetEdns0(1232, false)
			m.Rcode = dns.RcodeBadVers
			return m
		}
	}
	s.fill(m)
	if req.IsEdns0() != nil && s.plays("opt") != nil {
		m.SetEdns0(1232, false)
	}
	s.mangle(m, req.IsEdns0() != nil)
	m.AuthenticatedData = req.AuthenticatedData && (s.plays("ad") != nil || s.singles("ad-for", req.Question[0]))
	if s.plays("nxdomain") != nil {
		m.Rcode = dns.RcodeNameError
	}
	m.Truncated = network == "tcp" && s.plays("tcp-truncated") != nil
	if s.plays("reverse") != nil {
		slices.Reverse(m.Answer)
	}
	if s.plays("upper") != nil {
		m.Question[0].Name = strings.ToUpper(m.Question[0].Name)
		for _, rr := range m.Answer {
			rr.Header().Name = strings.ToUpper(rr.Header().Name)
		}
	}
	return m
}

// mangle spoils a response as home routers do.
func (s *testServer) mangle(m *dns.Msg, edns bool) {
	if tr := s.plays("owner"); tr != nil {
		for _, rr := range m.Answer {
			rr.Header().Name = tr.args[0]
		}
	}
	if !edns {
		return
	}
	opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT, Class: 1232}}
	if tr := s.plays("opt-in"); tr != nil && tr.args[0] == "answer" {
		m.Answer = append([]dns.RR{opt}, m.Answer...)
	} else if tr != nil {
		m.Ns = append(m.Ns, opt)
	}
}

// fill answers from the zone.
func (s *testServer) fill(m *dns.Msg) {
	name, qtype := m.Question[0].Name, m.Question[0].Qtype
	bare := s.plays("bare") != nil
	for range 20 {
		if rrs := s.find(name, qtype); len(rrs) > 0 {
			m.Answer = append(m.Answer, rrs...)
			return
		}
		cname := s.find(name, dns.TypeCNAME)
		if len(cname) == 0 {
			break
		}
		m.Answer = append(m.Answer, cname[0])
		if bare {
			return
		}
		name = cname[0].(*dns.CNAME).Target
	}
	if !slices.ContainsFunc(s.zone, func(rr dns.RR) bool { return dns.IsSubDomain(name, dns.CanonicalName(rr.Header().Name)) }) {
		m.Rcode = dns.RcodeNameError
	}
	if s.plays("nosoa") != nil {
		return
	}
	for _, rr := range s.zone {
		if soa, ok := rr.(*dns.SOA); ok {
			m.Ns = append(m.Ns, soa)
		}
	}
}

func (s *testServer) find(name string, qtype uint16) []dns.RR {
	var found []dns.RR
	for _, rr := range s.zone {
		if rr.Header().Rrtype == qtype && dns.CanonicalName(rr.Header().Name) == dns.CanonicalName(name) {
			found = append(found, dns.Copy(rr))
		}
	}
	return found
}

// wrong packs a response that is not one to req, or is malformed. Each has a false record, so that taking
// it shows.
func wrong(req *dns.Msg, kind string) []byte {
	m := new(dns.Msg).SetReply(req)
	q := m.Question[0]
	lie, _ := dns.NewRR(q.Name + ` 60 IN TXT "lie"`)
	m.Answer = []dns.RR{lie}
	switch kind {
	case "id-low":
		m.Id ^= 0x0001
	case "id-high":
		m.Id ^= 0x0100
	case "name":
		m.Question[0].Name = "x" + q.Name
	case "type":
		m.Question[0].Qtype = dns.TypeSPF
	case "class":
		m.Question[0].Qclass = dns.ClassCHAOS
	case "query":
		m.Response = false
	case "opcode":
		m.Opcode = dns.OpcodeNotify
	case "two-questions":
		m.Question = append(m.Question, m.Question[0])
	case "no-question":
		m.Question = nil
	}
	data, _ := m.Pack()
	switch kind {
	case "garbage":
		return []byte("\x00\x01garbage, and long enough to hold a header")
	case "short":
		return data[:11]
	case "cut-name":
		return data[:12+len(q.Name)+1+4+1]
	case "cut-border": // where the record would begin: Unpack takes it for a message without one
		return data[:12+len(q.Name)+1+4]
	case "no-data": // as in an update (RFC 2136, Section 2.4)
		m.Answer = []dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}}}
		data, _ = m.Pack()
		return data
	case "cut-record":
		return data[:12+len(q.Name)+1+4+len(q.Name)+1+4]
	case "cut-data":
		return data[:len(data)-1]
	case "bad-data":
		data[len(data)-4]++ // the length of the string in the TXT record
	case "huge":
		return append(data, make([]byte, 8000)...)
	}
	return data
}

// describe puts what a server sees of a question into words.
func describe(req *dns.Msg) string {
	q := req.Question[0]
	s := dns.TypeToString[q.Qtype] + " " + q.Name
	if opt := req.IsEdns0(); opt != nil {
		s += fmt.Sprintf(" edns=%d", opt.UDPSize())
		if opt.Do() {
			s += " do"
		}
	}
	for _, flag := range []struct {
		set  bool
		name string
	}{{req.RecursionDesired, "rd"}, {req.AuthenticatedData, "ad"}, {req.CheckingDisabled, "cd"}} {
		if flag.set {
			s += " " + flag.name
		}
	}
	return s
}
