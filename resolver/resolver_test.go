package resolver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestServers holds the forms of Config.Servers (operators P21: scoped addresses too).
func TestServers(t *testing.T) {
	const want = `want an address such as "192.0.2.1", "[::1]:5353" or "tls://192.0.2.1#dns.example"`
	for _, c := range []struct {
		in, text string // text "": an error
		trusted  bool
	}{
		{"192.0.2.1", "192.0.2.1:53", false},
		{"192.0.2.1:5353", "192.0.2.1:5353", false},
		{"127.0.0.53", "127.0.0.53:53", true},
		{"127.0.0.11", "127.0.0.11:53", false}, // container engines: a forwarder
		{"::ffff:127.0.0.11", "[::ffff:127.0.0.11]:53", false},
		{"::1", "[::1]:53", true},
		{"[::1]", "[::1]:53", true},
		{"[::1]:5353", "[::1]:5353", true},
		{"::ffff:127.0.0.1", "[::ffff:127.0.0.1]:53", true},
		{"fe80::1%eth0", "[fe80::1%eth0]:53", false},
		{"[fe80::1%eth0]:5353", "[fe80::1%eth0]:5353", false},
		{"tls://192.0.2.1#dns.example", "tls://192.0.2.1:853#dns.example", true},
		{"tls://192.0.2.1:8853#dns.example", "tls://192.0.2.1:8853#dns.example", true},
		{"tls://[2001:db8::1]:853#dns.example", "tls://[2001:db8::1]:853#dns.example", true},
		{"tls://2001:db8::1#dns.example", "tls://[2001:db8::1]:853#dns.example", true},
		{"tls://192.0.2.1", "tls://192.0.2.1:853#192.0.2.1", true},
		{"tls://[fe80::1%eth0]", "tls://[fe80::1%eth0]:853#fe80::1", true},
		{"tls://192.0.2.1#", "", false},
		{"tls://192.0.2.1#two words", "", false},
		{"tls://192.0.2.1#-dns.example", "", false},
		{"tls://dns.example", "", false},
		{"dns.example", "", false},
		{"https://192.0.2.1/dns-query", "", false},
		{"192.0.2.1:0", "", false},
		{"192.0.2.1:99999", "", false},
		{"192.0.2.1#dns.example", "", false},
		{"[192.0.2.1]", "", false},
		{"192.0.2.1 ", "", false},
		{"", "", false},
	} {
		s, err := parseServer(c.in, trustAuto, nil)
		switch {
		case c.text == "" && err == nil:
			t.Errorf("%q: became %s", c.in, s.text)
		case c.text == "" && (!strings.Contains(err.Error(), fmt.Sprintf("server %q: ", c.in)) || !strings.HasSuffix(err.Error(), want)):
			t.Errorf("%q: error %q", c.in, err)
		case c.text != "" && err != nil:
			t.Errorf("%q: %v", c.in, err)
		case c.text != "" && (s.text != c.text || s.trusted != c.trusted):
			t.Errorf("%q: became %s, trusted %v", c.in, s.text, s.trusted)
		}
	}
}

// TestNewRefuses holds that New names what it does not understand.
func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		conf Config
		want string
	}{
		{Config{Servers: []string{"::1", "localhost"}}, `"localhost"`},
		{Config{TrustAD: "maybe"}, `"maybe"`},
		{Config{Timeout: -time.Second}, "-1s"},
		{Config{Attempts: -2}, "-2"},
	} {
		if _, err := New(c.conf); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want one with %s", c.conf, err, c.want)
		}
	}
}

// TestOctets holds that TXT returns every octet as it was sent.
func TestOctets(t *testing.T) {
	var all, escaped []byte
	for i := range 256 {
		if i == 200 {
			escaped = append(escaped, `" "`...) // a string holds 255 octets
		}
		all = append(all, byte(i))
		escaped = fmt.Appendf(escaped, `\%03d`, i)
	}
	s := startServer(t, "a", fmt.Sprintf("x.example. 60 IN TXT \"%s\"\ny.example. 60 IN TXT \"%s\"", escaped, escaped[:4*128]))
	r, err := New(Config{Servers: []string{s.addr}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"x.example": all, "y.example": all[:128]} {
		a, err := r.TXT(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if len(a.Records) != 1 || !bytes.Equal([]byte(a.Records[0]), want) {
			t.Errorf("%s: got %q, want %q", name, a.Records, want)
		}
	}
}

// TestLongNames holds the greatest length of a name: 253 octets here, 255 on the wire (RFC 1035, Section 2.3.4).
func TestLongNames(t *testing.T) {
	name := strings.Repeat(strings.Repeat("a", 62)+".", 4) + "b"
	s := startServer(t, "a", name+`. 60 IN TXT "x"`)
	r, err := New(Config{Servers: []string{s.addr}})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := r.TXT(t.Context(), name); err != nil || len(a.Records) != 1 {
		t.Errorf("%d octets: %v, %v", len(name), a, err)
	}
	if _, err := r.TXT(t.Context(), name+"b"); kindOf(t, err) != Malformed {
		t.Errorf("%d octets: %v", len(name)+1, err)
	}
	if got := s.queries(); len(got) != 1 {
		t.Errorf("asked: %q", got)
	}
}

func kindOf(t *testing.T, err error) Kind {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("error %v, want an *Error", err)
	}
	if e.Timeout() != (e.Kind == Timeout) {
		t.Errorf("Timeout of %v is %v", e, e.Timeout())
	}
	return e.Kind
}

// TestCancel holds that the end of the context ends the question, over UDP and over TCP, and is the cause.
func TestCancel(t *testing.T) {
	for _, script := range []string{"@silent", "@truncate\n@tcp-silent"} {
		s := startServer(t, "a", script)
		r, err := New(Config{Servers: []string{s.addr}, Timeout: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		want := 1 + strings.Count(script, "\n")
		var wg sync.WaitGroup
		wg.Go(func() {
			for len(s.queries()) < want && t.Context().Err() == nil {
				time.Sleep(time.Millisecond)
			}
			cancel()
		})
		_, err = r.TXT(ctx, "x.example")
		wg.Wait()
		if kindOf(t, err) != Timeout || !errors.Is(err, context.Canceled) {
			t.Errorf("%q: error %v", script, err)
		}
		if s := r.list.Load().servers[0]; s.silent.Load() != 0 {
			t.Errorf("%q: the server is blamed for what the caller did", script)
		}
		_, err = r.TXT(ctx, "x.example")
		if kindOf(t, err) != Timeout || err.Error() != "x.example TXT: not asked: context canceled" {
			t.Errorf("%q: error %v", script, err)
		}
		if got := len(s.queries()); got != want {
			t.Errorf("%q: asked %d times", script, got)
		}
	}
}

// TestOrder holds that a server that was silent is asked last of those that are trusted as much, for a
// while, and then tried by one question.
func TestOrder(t *testing.T) {
	r, err := New(Config{Servers: []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}})
	if err != nil {
		t.Fatal(err)
	}
	l := r.list.Load()
	step := func(now time.Duration, want string) {
		t.Helper()
		if got := orderOf(l, now); got != want {
			t.Errorf("at %v: order %s, want %s", now, got, want)
		}
	}
	step(1, "123")
	l.servers[0].noteSilence(1, 1)
	step(2, "231")
	step(penalty, "231")
	step(penalty+1, "123") // one question tries it
	step(penalty+2, "231") // the next does not
	l.servers[1].noteSilence(2, penalty)
	step(penalty+3, "312")
	l.servers[0].noteResponse(penalty + 3)
	step(penalty+3, "132")
	l.servers[0].noteSilence(penalty+2, penalty+4) // it responded to another query meanwhile
	step(penalty+4, "132")
	l.servers[0].noteSilence(penalty+4, penalty+5)
	l.servers[2].noteSilence(penalty+4, penalty+5)
	step(penalty+6, "123") // none is better than another
}

// TestTrustedFirst holds that a server that is not trusted never comes before one that is, whatever was
// silent.
func TestTrustedFirst(t *testing.T) {
	r, err := New(Config{Servers: []string{"192.0.2.1", "127.0.0.2", "192.0.2.3", "127.0.0.4"}})
	if err != nil {
		t.Fatal(err)
	}
	l := r.list.Load()
	if got := orderOf(l, 1); got != "2413" {
		t.Errorf("order %s", got)
	}
	l.servers[1].noteSilence(1, 1)
	l.servers[2].noteSilence(1, 1)
	if got := orderOf(l, 2); got != "4213" {
		t.Errorf("one of each is silent: order %s", got)
	}
	l.servers[3].noteSilence(1, 1)
	if got := orderOf(l, 2); got != "2413" {
		t.Errorf("both that are trusted are silent: order %s", got)
	}
}

// orderOf returns the last numbers of the addresses in the order to ask them.
func orderOf(l *serverList, now time.Duration) (s string) {
	servers, _ := l.order(now)
	for _, srv := range servers {
		a := srv.addr.Addr().As4()
		s += strconv.Itoa(int(a[3]))
	}
	return s
}

// TestBack holds that a server is no longer spared once it answered, be it with a failure.
func TestBack(t *testing.T) {
	s := startServer(t, "a", "@rcode SERVFAIL")
	r, err := New(Config{Servers: []string{s.addr}})
	if err != nil {
		t.Fatal(err)
	}
	srv := r.list.Load().servers[0]
	srv.silent.Store(1)
	if _, err := r.TXT(t.Context(), "x.example"); kindOf(t, err) != ServFail {
		t.Errorf("error %v", err)
	}
	if srv.silent.Load() != 0 {
		t.Error("the server is spared although it answered")
	}
}

// TestStranger holds that a server that responds to another query meanwhile is not silent, though the
// name servers of one domain are; and that it is silent if it responds to none.
func TestStranger(t *testing.T) {
	const script = "live.example. 60 IN TXT \"a\"\n@silent-for dead.example.\n"
	for _, c := range []struct {
		live   bool
		silent bool
	}{{live: true}, {silent: true}} {
		a := startServer(t, "a", script)
		b := startServer(t, "b", `dead.example. 60 IN TXT "b"`)
		r, err := New(Config{Servers: []string{a.addr, b.addr}, Timeout: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		var dead sync.WaitGroup
		dead.Go(func() {
			if got, err := r.TXT(t.Context(), "dead.example"); err != nil || len(got.Records) != 1 {
				t.Errorf("dead.example: %+v, %v", got, err)
			}
		})
		if c.live {
			for len(a.queries()) == 0 {
				time.Sleep(time.Millisecond)
			}
			if _, err := r.TXT(t.Context(), "live.example"); err != nil {
				t.Error(err)
			}
		}
		dead.Wait()
		if got := r.list.Load().servers[0].silent.Load() != 0; got != c.silent {
			t.Errorf("with an answer meanwhile %v: silent %v", c.live, got)
		}
	}
}

// TestShortDeadline holds that a server is not blamed for silence if the caller gave it little time.
func TestShortDeadline(t *testing.T) {
	a := startServer(t, "a", "@silent")
	r, err := New(Config{Servers: []string{a.addr}, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := r.TXT(ctx, "x.example"); kindOf(t, err) != Timeout {
		t.Errorf("error %v", err)
	}
	if r.list.Load().servers[0].silent.Load() != 0 {
		t.Error("the server is taken for silent")
	}
}

// TestAddrSilence holds that where addresses of one kind come, the other question's silence is not the
// server's.
func TestAddrSilence(t *testing.T) {
	a := startServer(t, "a", "mx.example. 60 IN AAAA ::1\n@silent-for A")
	r, err := New(Config{Servers: []string{a.addr}, Timeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.Addr(t.Context(), "mx.example"); err != nil || fmt.Sprint(got.Records) != "[::1]" {
		t.Errorf("%+v, %v", got, err)
	}
	if r.list.Load().servers[0].silent.Load() != 0 {
		t.Error("the server is taken for silent")
	}
}

// TestTrustAD holds that the option trust-ad of resolv.conf does not count.
func TestTrustAD(t *testing.T) {
	s := startServer(t, "a", "x.example. 60 IN TXT \"x\"\n@ad")
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("nameserver 192.0.2.1\noptions edns0 trust-ad\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := New(Config{ResolvConf: path, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, s.addr)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := r.TXT(t.Context(), "x.example"); err != nil || a.Secure || a.Unknown != nil {
		t.Errorf("%+v, %v", a, err)
	}
}

// TestParseConf holds what is taken from resolv.conf(5).
func TestParseConf(t *testing.T) {
	for in, want := range map[string]string{
		"nameserver 192.0.2.1\nnameserver\t::1  # ours\n":                                      "[192.0.2.1 ::1]",
		"search example\noptions timeout:1 trust-ad\nnameserver fe80::1%eth0":                  "[fe80::1%eth0]",
		"#nameserver 192.0.2.1\n;nameserver 192.0.2.1\nnameserver\nnameserver dns.example\n\n": "[]",
		"nameserver 192.0.2.1\r\nnameserver 192.0.2.1:53\nnameservers 192.0.2.2\n":             "[192.0.2.1]",
		strings.Repeat("nameserver 192.0.2.1\n", 4):                                            "[192.0.2.1 192.0.2.1 192.0.2.1]",
		"\x00\x01\xff": "[]",
		"":             "[]",
	} {
		if got := fmt.Sprint(parseConf(in)); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

// TestResolvConf plays the life of the file: missing, written, rewritten, spoilt, removed, put in place by rename.
func TestResolvConf(t *testing.T) {
	servers := map[string]*testServer{
		"127.0.0.1:53": startServer(t, "local", `x.example. 60 IN TXT "local"`),
		"192.0.2.1:53": startServer(t, "one", `x.example. 60 IN TXT "one"`),
		"192.0.2.2:53": startServer(t, "two", `x.example. 60 IN TXT "two"`),
	}
	path := filepath.Join(t.TempDir(), "resolv.conf")
	r, err := New(Config{
		ResolvConf: path,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, servers[addr].addr)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	step := func(what, want string) {
		t.Helper()
		r.checked.Store(-int64(time.Hour)) // as if a second had passed
		a, err := r.TXT(t.Context(), "x.example")
		if err != nil || len(a.Records) != 1 || a.Records[0] != want {
			t.Errorf("%s: asked %q, %v; want %q", what, a.Records, err, want)
		}
	}
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	step("missing", "local")
	write(path, "nameserver 192.0.2.1\n")
	step("written", "one")
	write(path, "search example\nnameserver 192.0.2.2\n")
	step("rewritten", "two")
	write(path, "nameserver 192.0.2.\n")
	step("spoilt", "two")
	write(path, "")
	step("empty", "two")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	step("removed", "two")
	write(path+".new", "nameserver 192.0.2.1\n")
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	step("renamed", "one")

	// Within the second, the file is not looked at.
	r.checked.Store(int64(time.Since(r.began) + time.Hour))
	write(path, "nameserver 192.0.2.2 # longer\n")
	if a, err := r.TXT(t.Context(), "x.example"); err != nil || a.Records[0] != "one" {
		t.Errorf("looked at too early: %v, %v", a, err)
	}
}

// TestKinds holds the words that are labels of a metric.
func TestKinds(t *testing.T) {
	got := fmt.Sprint(ServFail, Refused, Malformed, Network, Timeout, CNAMELoop, Untrusted, Kind(9))
	if want := "servfail refused malformed network timeout cname_loop untrusted Kind(9)"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// BenchmarkTXT is one question with the usual answer; the server is not what is measured, but on the
// same machine.
func BenchmarkTXT(b *testing.B) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		echo(pc)
	}()
	defer func() { pc.Close(); <-done }()
	r, err := New(Config{Servers: []string{pc.LocalAddr().String()}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		if a, err := r.TXT(ctx, "_mta-sts.example.com"); err != nil || len(a.Records) != 1 {
			b.Fatal(a, err)
		}
	}
}

// echo answers every question with the same TXT record, and allocates nothing.
func echo(pc net.PacketConn) {
	u := pc.(*net.UDPConn)
	rr := append([]byte{0xc0, 12, 0, 16, 0, 1, 0, 0, 1, 44, 0, 31, 30}, "v=STSv1; id=20160831085700Z00;"...)
	buf := make([]byte, 1500)
	for {
		n, from, err := u.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		n -= 11        // the OPT record
		buf[2] |= 0x80 // QR
		buf[7], buf[11] = 1, 0
		n += copy(buf[n:], rr)
		u.WriteToUDPAddrPort(buf[:n], from)
	}
}
