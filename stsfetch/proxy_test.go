package stsfetch

import (
	"bufio"
	"cmp"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A proxy is a small HTTP proxy that knows CONNECT and nothing else.
type proxy struct {
	world *world
	want  string // Proxy-Authorization that it wants; empty for none
	speak string // what it says instead of an answer; empty for the answer
	to    string // address that it connects to; empty for the policy host of world
	addr  string

	mu    sync.Mutex
	asked []string
}

func newProxy(t *testing.T, p *proxy, secured *tls.Config) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = l.Addr().String()
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(time.Minute))
			if secured != nil {
				conn = tls.Server(conn, secured)
			}
			running.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return p
}

// serve takes one connection where it wants to go.
func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	in := bufio.NewReader(client)
	r, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+r.RequestURI+" Host: "+r.Host+" Agent: "+r.UserAgent())
	p.mu.Unlock()
	if p.speak != "" {
		_, _ = io.WriteString(client, p.speak)
		return
	}
	if r.Header.Get("Proxy-Authorization") != p.want {
		_, _ = io.WriteString(client, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n")
		return
	}
	host, _, _ := net.SplitHostPort(r.RequestURI)
	server, err := net.Dial("tcp", cmp.Or(p.to, p.world.HTTPSAddr(host)))
	if err != nil {
		_, _ = io.WriteString(client, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return
	}
	defer server.Close()
	_, _ = io.WriteString(client, "HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
	relay(client, in, server)
}

// relay copies in, what client sends, to server and the answer back.
func relay(client net.Conn, in io.Reader, server net.Conn) {
	go func() {
		_, _ = io.Copy(server, in)
		server.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(client, server)
}

// TestProxy: a proxy gets the name of the policy host. No DNS query is sent, and
// nothing else is dialed.
func TestProxy(t *testing.T) {
	for _, c := range []struct {
		name  string
		words string // of the policy host
		user  string // in the URL
		auth  string // that the proxy wants
		speak string // what the proxy says instead of an answer
		step  Step
		text  string
	}{
		{name: "open"},
		{name: "credentials", user: "me:s%40cret%3A1@", auth: "Basic bWU6c0BjcmV0OjE="},
		// "me:???", whose last group has a "/" in base64 and none in its variant for URLs.
		{name: "odd credentials", user: "me:%3F%3F%3F@", auth: "Basic bWU6Pz8/"},
		{name: "no credentials", auth: "Basic bWU6c0BjcmV0OjE=", step: StepConnect, text: "refused with status 407"},
		{name: "wrong credentials", user: "me:hunter2@", auth: "Basic x", step: StepConnect, text: "refused with status 407"},
		{name: "bad gateway", words: "down", user: "me:hunter2@", auth: "Basic bWU6aHVudGVyMg==", step: StepConnect, text: "refused with status 502"},
		{name: "not a proxy", speak: "SSH-2.0-OpenSSH\r\n", step: StepConnect, text: "malformed HTTP"},
		{name: "web server", speak: "HTTP/1.1 400 Bad Request\r\nContent-Length: 4\r\n\r\nhaha", step: StepConnect, text: "refused with status 400"},
		{name: "redirect", speak: "HTTP/1.1 302 Found\r\nLocation: https://login.example/\r\n\r\n", step: StepConnect, text: "refused with status 302"},
		{name: "hangs up", speak: "\r\n", step: StepConnect, text: "malformed"},
		{name: "talks without end", speak: "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 20000), step: StepConnect, text: "EOF"},
		{name: "goes on in the clear", speak: "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + policyText,
			step: StepTLS, text: "tls"},
		{name: "certificate", words: "cert=othername", step: StepCert, text: "certificate is not valid for mta-sts.example.com"},
		{name: "status", words: "status=404", step: StepStatus, text: "404"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, hostWorld("policy=p "+c.words))
			p := newProxy(t, &proxy{world: w, want: c.auth, speak: c.speak}, nil)
			e := fetch(t, w.fetcher(t, Config{Proxy: "http://" + c.user + p.addr, UserAgent: "test/1"}))
			want(t, e, c.step, c.text)
			if e != nil && strings.Contains(e.Error(), "hunter2") {
				t.Errorf("the password is in the error: %s", e)
			}
			checkProxied(t, w, p)
		})
	}
}

// checkProxied checks that there was one request, to p and by name.
func checkProxied(t *testing.T, w *world, p *proxy) {
	t.Helper()
	ask := "CONNECT mta-sts.example.com:443 Host: mta-sts.example.com:443 Agent: test/1"
	if !slices.Equal(p.asked, []string{ask}) {
		t.Errorf("proxy was asked %q, want %q", p.asked, ask)
	}
	if host, _, _ := net.SplitHostPort(p.addr); !slices.Equal(w.dialled, []string{host}) {
		t.Errorf("dialled %q, want the proxy", w.dialled)
	}
	if n := w.Queries("", ""); n != 0 {
		t.Errorf("%d DNS questions, want none: the proxy resolves", n)
	}
}

// TestProxySecured: to a proxy with https:// all traffic is in TLS, with
// the policy host's TLS within it.
func TestProxySecured(t *testing.T) {
	w := newWorld(t, hostWorld("policy=p"))
	cert, _ := selfIssued(t, []string{"127.0.0.1"})
	roots := w.Roots()
	roots.AppendCertsFromPEM(w.CAPEM())
	leaf, err := parseLeaf(cert)
	if err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, &proxy{world: w}, &tls.Config{Certificates: []tls.Certificate{cert}})
	c := Config{Proxy: "https://" + p.addr, UserAgent: "test/1", Roots: roots}
	want(t, fetch(t, w.fetcher(t, c)), StepConnect, "certificate signed by unknown authority")
	w.dialled = nil
	roots.AddCert(leaf)
	want(t, fetch(t, w.fetcher(t, c)), "", "")
	checkProxied(t, w, p)
}

// TestProxyDown: a proxy that is not there is what is wrong.
func TestProxyDown(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	w := newWorld(t, hostWorld("policy=p"))
	want(t, fetch(t, w.fetcher(t, Config{Proxy: "http://" + l.Addr().String()})), StepConnect, "proxy: ")
}

// TestProxyStalls: a proxy that does not answer is given up, too.
func TestProxyStalls(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w := newWorld(t, hostWorld("policy=p"))
	for _, scheme := range []string{"http://", "https://", "socks5://"} {
		e := fetch(t, w.fetcher(t, Config{Proxy: scheme + l.Addr().String(), Timeout: 500 * time.Millisecond}))
		want(t, e, StepTimeout, "connect: timed out")
	}
}

// TestProxyEnvironment: "env" is what HTTPS_PROXY and NO_PROXY say, and nothing else
// reads them.
func TestProxyEnvironment(t *testing.T) {
	w := newWorld(t, hostWorld("policy=p"))
	p := newProxy(t, &proxy{world: w}, nil)
	t.Setenv("HTTPS_PROXY", "http://"+p.addr)
	t.Setenv("NO_PROXY", "mta-sts.example.net")
	want(t, fetch(t, w.fetcher(t, Config{Proxy: "env", UserAgent: "test/1"})), "", "")
	checkProxied(t, w, p)
	_, _, err := w.fetcher(t, Config{Proxy: "env"}).Policy(t.Context(), "example.net")
	if err == nil || len(p.asked) != 1 {
		t.Errorf("NO_PROXY: %v, proxy was asked %q", err, p.asked)
	}
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:9")
	t.Setenv("https_proxy", "http://127.0.0.1:9")
	t.Setenv("ALL_PROXY", "http://127.0.0.1:9")
	want(t, fetch(t, w.fetcher(t, Config{AllowPrivate: loopback()})), "", "")
}

// TestNewRefuses: a setting that cannot work is refused at once, by name, and
// without telling a password to the log.
func TestNewRefuses(t *testing.T) {
	w := newWorld(t, "")
	good := w.fetcher(t, Config{})
	if _, err := New(Config{}); err == nil {
		t.Error("a Fetcher without Resolver")
	}
	for _, setting := range []string{
		"socks4://me:hunter2@127.0.0.1:1080", "ftp://me:hunter2@127.0.0.1", "socks5://:hunter2@127.0.0.1:1080", "http://me:hunter2@127.0.0.1/path", "127.0.0.1:3128", "http://", "proxy.example", "ENV", "http://me:hunter2@a b:1", "http://[::1",
	} {
		_, err := New(Config{Resolver: good.resolver, Proxy: setting})
		if err == nil || !strings.Contains(err.Error(), "proxy") {
			t.Errorf("%q: %v", setting, err)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the password is in the error: %v", err)
		}
	}
}

// socksServer serves SOCKS version 5 on l, for clients with user and password or, if
// user is empty, for all. It connects every client to the policy host of w and
// sends to asked what it was asked for.
func socksServer(t *testing.T, w *world, user, password string, asked chan<- string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(time.Minute))
			running.Go(func() { serveSocks(w, conn, user, password, asked) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return l.Addr().String()
}

// serveSocks serves one client (RFC 1928, RFC 1929).
func serveSocks(w *world, client net.Conn, user, password string, asked chan<- string) {
	defer client.Close()
	in := bufio.NewReader(client)
	text := func() string { // with its length before it
		n, _ := in.ReadByte()
		b := make([]byte, n)
		_, _ = io.ReadFull(in, b)
		return string(b)
	}
	_, _ = in.ReadByte()
	methods := text()
	if user == "" {
		_, _ = client.Write([]byte{5, 0})
	} else {
		if !strings.Contains(methods, "\x02") {
			_, _ = client.Write([]byte{5, 0xff})
			return
		}
		_, _ = client.Write([]byte{5, 2})
		_, _ = in.ReadByte()
		if text() != user || text() != password {
			_, _ = client.Write([]byte{1, 1})
			return
		}
		_, _ = client.Write([]byte{1, 0})
	}
	var head [4]byte
	_, _ = io.ReadFull(in, head[:])
	host := "an address"
	if head[3] == 3 {
		host = text()
	}
	var port [2]byte
	_, _ = io.ReadFull(in, port[:])
	asked <- host
	server, err := net.Dial("tcp", w.HTTPSAddr(host))
	if err != nil {
		_, _ = client.Write([]byte{5, 5, 0, 1, 0, 0, 0, 0, 0, 0})
		return
	}
	defer server.Close()
	_, _ = client.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	relay(client, in, server)
}

// TestProxySocks: a SOCKS proxy gets the name of the policy host, too. No DNS query is
// sent, and nothing else is dialed.
func TestProxySocks(t *testing.T) {
	for _, c := range []struct {
		name, scheme, words string
		user                string // in the URL
		wants, password     string // what the proxy wants
		step                Step
		text                string
	}{
		{name: "open", scheme: "socks5://"},
		{name: "resolving", scheme: "socks5h://"},
		{name: "credentials", scheme: "socks5://", user: "me:hunter2@", wants: "me", password: "hunter2"},
		{name: "wrong credentials", scheme: "socks5://", user: "me:hunter3@", wants: "me", password: "hunter2", step: StepConnect, text: "proxy: socks connect"},
		{name: "no credentials", scheme: "socks5://", wants: "me", password: "hunter2", step: StepConnect, text: "proxy: socks connect"},
		{name: "refused", scheme: "socks5://", words: "down", step: StepConnect, text: "connection refused"},
		{name: "status", scheme: "socks5://", words: "status=404", step: StepStatus, text: "404"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, hostWorld("policy=p "+c.words))
			asked := make(chan string, 2)
			addr := socksServer(t, w, c.wants, c.password, asked)
			e := fetch(t, w.fetcher(t, Config{Proxy: c.scheme + c.user + addr}))
			want(t, e, c.step, c.text)
			if e != nil && strings.Contains(e.Error(), "hunter") {
				t.Errorf("the password is in the error: %s", e)
			}
			if close(asked); !strings.Contains(c.name, "credentials") || c.step == "" {
				if host := <-asked; host != "mta-sts.example.com" {
					t.Errorf("the proxy was asked for %q", host)
				}
			}
			if !slices.Equal(w.dialled, []string{"127.0.0.1"}) || w.Queries("", "") != 0 {
				t.Errorf("dialled %q and asked %d DNS questions, want only the proxy", w.dialled, w.Queries("", ""))
			}
		})
	}
}

// TestProxyEnvironmentWrong: with a wrong proxy in the environment nothing is
// fetched, and no host is connected to without it.
func TestProxyEnvironmentWrong(t *testing.T) {
	w := newWorld(t, hostWorld("policy=p"))
	for _, value := range []string{"socks4://me:hunter2@127.0.0.1:1080", "http://me:hunter2@a b:1", "http://", "ftp://127.0.0.1", "http://127.0.0.1:1/path", "://", "127.0.0.1:x"} {
		t.Setenv("HTTPS_PROXY", value)
		if err := CheckProxy("env"); err == nil || !strings.Contains(err.Error(), "HTTPS_PROXY") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", value, err)
		}
		f := w.fetcher(t, Config{Proxy: "env", AllowPrivate: loopback()})
		want(t, fetch(t, f), StepConnect, "proxy of HTTPS_PROXY in the environment")
		if _, err := f.Probe(t.Context(), "example.com"); err == nil {
			t.Errorf("%q: Probe succeeds", value)
		}
	}
	if len(w.dialled) > 0 || w.Queries("", "") > 0 {
		t.Errorf("dialled %q, asked %d DNS questions", w.dialled, w.Queries("", ""))
	}
	for _, value := range []string{"", "127.0.0.1:3128", "proxy.example", "http://proxy.example", "socks5://me:x@127.0.0.1", "https://[::1]:1"} {
		t.Setenv("HTTPS_PROXY", value)
		if err := CheckProxy("env"); err != nil {
			t.Errorf("%q: %v", value, err)
		}
	}
}
