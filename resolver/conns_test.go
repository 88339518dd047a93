package resolver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// A countingListener counts the connections.
type countingListener struct {
	net.Listener
	n atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return c, err
}

// listenTLS listens on loopback.
func listenTLS(t testing.TB, cert tls.Certificate) *countingListener {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	return &countingListener{Listener: l}
}

// newTLSResolver returns a Resolver that asks one server, once.
func newTLSResolver(t testing.TB, addr string, pool *x509.CertPool) *Resolver {
	t.Helper()
	r, err := New(Config{Servers: []string{"tls://" + addr + "#dns.example"}, Attempts: 1, Roots: pool})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// askTXT asks for a name that is to have its own name as text.
func askTXT(t testing.TB, r *Resolver, name string) {
	t.Helper()
	a, err := r.TXT(context.Background(), name)
	if err != nil || len(a.Records) != 1 || a.Records[0] != name {
		t.Errorf("%s: %+v, %v", name, a, err)
	}
}

// echoName answers a query for TXT with the name in it.
func echoName(w dns.ResponseWriter, req *dns.Msg) {
	m := new(dns.Msg).SetReply(req)
	name := m.Question[0].Name
	m.Answer = []dns.RR{&dns.TXT{
		Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60},
		Txt: []string{strings.TrimSuffix(name, ".")},
	}}
	w.WriteMsg(m)
}

// TestTLSReuse holds that questions one after the other use one connection (RFC 7858, Section 3.4).
func TestTLSReuse(t *testing.T) {
	cert, pool := selfSigned(t, []string{"dns.example"}, nil)
	l := listenTLS(t, cert)
	new(testServer).run(t, &dns.Server{Listener: l, Net: "tcp-tls", Handler: dns.HandlerFunc(echoName)})
	r := newTLSResolver(t, l.Addr().String(), pool)
	for i := range 20 {
		askTXT(t, r, fmt.Sprintf("a%d.example", i))
	}
	if n := l.n.Load(); n != 1 {
		t.Errorf("20 questions took %d connections", n)
	}
}

// TestTLSClosedMeanwhile holds that a question on a connection that the server has closed since is asked
// on a new one, and does not fail.
func TestTLSClosedMeanwhile(t *testing.T) {
	cert, pool := selfSigned(t, []string{"dns.example"}, nil)
	l := listenTLS(t, cert)
	new(testServer).run(t, &dns.Server{Listener: l, Net: "tcp-tls", Handler: dns.HandlerFunc(echoName), MaxTCPQueries: 1})
	r := newTLSResolver(t, l.Addr().String(), pool)
	for i := range 20 {
		askTXT(t, r, fmt.Sprintf("a%d.example", i))
	}
	if n := l.n.Load(); n != 20 {
		t.Errorf("20 questions took %d connections of a server that closes each", n)
	}
}

// TestTLSCloses holds that a server that closes new connections without an answer is not asked on and on.
func TestTLSCloses(t *testing.T) {
	cert, pool := selfSigned(t, []string{"dns.example"}, nil)
	l := listenTLS(t, cert)
	new(testServer).run(t, &dns.Server{Listener: l, Net: "tcp-tls", Handler: dns.HandlerFunc(func(w dns.ResponseWriter, _ *dns.Msg) { w.Close() })})
	r := newTLSResolver(t, l.Addr().String(), pool)
	if _, err := r.TXT(t.Context(), "a.example"); kindOf(t, err) != Network {
		t.Errorf("error %v", err)
	}
	if n := l.n.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestTLSShared holds that many questions at once share a few connections, and each gets its own answer,
// though the answers come in another order (RFC 7766, Section 6.2.1.1).
func TestTLSShared(t *testing.T) {
	cert, pool := selfSigned(t, []string{"dns.example"}, nil)
	l := listenTLS(t, cert)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { answerReversed(c) })
		}
	})
	defer serving.Wait()
	defer l.Close()
	r := newTLSResolver(t, l.Addr().String(), pool)
	var asking sync.WaitGroup
	for i := range 200 {
		asking.Go(func() { askTXT(t, r, fmt.Sprintf("a%d.example", i)) })
	}
	asking.Wait()
	if n := l.n.Load(); n > maxConns {
		t.Errorf("200 questions took %d connections", n)
	}
	for _, c := range r.list.Load().servers[0].conns.open {
		c.dns.Close()
	}
}

// answerReversed answers the queries that have come within a moment, the last one first.
func answerReversed(c net.Conn) {
	defer c.Close()
	conn := &dns.Conn{Conn: c}
	var (
		mu      sync.Mutex
		queries []*dns.Msg
		flushed sync.WaitGroup
	)
	defer flushed.Wait()
	for {
		req, err := conn.ReadMsg()
		if err != nil {
			return
		}
		mu.Lock()
		queries = append(queries, req)
		mu.Unlock()
		flushed.Go(func() {
			time.Sleep(10 * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			for len(queries) > 0 {
				last := len(queries) - 1
				echoName(connWriter{conn: conn}, queries[last])
				queries = queries[:last]
			}
		})
	}
}

// A connWriter writes messages only.
type connWriter struct {
	dns.ResponseWriter
	conn *dns.Conn
}

func (w connWriter) WriteMsg(m *dns.Msg) error { return w.conn.WriteMsg(m) }

// pipes dials net.Pipes, each to a TLS server that serve is called for, with the number of the connection.
func pipes(cert tls.Certificate, serve func(n int, c *dns.Conn)) func(context.Context, string, string) (net.Conn, error) {
	var n atomic.Int64
	return func(context.Context, string, string) (net.Conn, error) {
		here, there := net.Pipe()
		i := int(n.Add(1))
		go func() {
			defer there.Close()
			// A pipe has no buffer: the client would still be writing when the server writes tickets.
			conf := &tls.Config{Certificates: []tls.Certificate{cert}, SessionTicketsDisabled: true}
			serve(i, &dns.Conn{Conn: tls.Server(there, conf)})
		}()
		return here, nil
	}
}

// TestTLSIdle holds that a connection without questions is closed after a while, and no sooner, and that
// no goroutine stays.
func TestTLSIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cert, pool := selfSigned(t, []string{"dns.example"}, nil)
		began := time.Now()
		var closed []time.Duration
		dial := pipes(cert, func(n int, c *dns.Conn) {
			for {
				req, err := c.ReadMsg()
				if err != nil {
					closed = append(closed, time.Since(began))
					return
				}
				echoName(connWriter{conn: c}, req)
			}
		})
		r, err := New(Config{Servers: []string{"tls://192.0.2.1#dns.example"}, Roots: pool, Dial: dial})
		if err != nil {
			t.Fatal(err)
		}
		askTXT(t, r, "a.example")
		time.Sleep(connIdle - time.Second)
		askTXT(t, r, "b.example")
		time.Sleep(2 * connIdle)
		synctest.Wait()
		if got, want := fmt.Sprint(closed), fmt.Sprint([]time.Duration{2*connIdle - time.Second}); got != want {
			t.Errorf("closed after %s, want %s", got, want)
		}
	})
}

// TestTLSDead holds that a question is asked again on another connection than the one that is silent, and
// that the silent one is closed.
func TestTLSDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cert, pool := selfSigned(t, []string{"dns.example"}, nil)
		var ended atomic.Int64
		dial := pipes(cert, func(n int, c *dns.Conn) {
			defer ended.Add(1)
			for asked := 1; ; asked++ {
				req, err := c.ReadMsg()
				if err != nil {
					return
				}
				if n > 1 || asked == 1 {
					echoName(connWriter{conn: c}, req)
				}
			}
		})
		r, err := New(Config{Servers: []string{"tls://192.0.2.1#dns.example"}, Roots: pool, Dial: dial, Timeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		askTXT(t, r, "a.example")
		began := time.Now()
		askTXT(t, r, "b.example")
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("answered after %v, want the second attempt's 2s", took)
		}
		synctest.Wait()
		if n := ended.Load(); n != 1 {
			t.Errorf("%d connections ended, want the silent one", n)
		}
		askTXT(t, r, "c.example")
		time.Sleep(2 * connIdle)
	})
}

// TestTLSCanceled holds that questions that share a connection are not hurt by one that is canceled, be it
// the one that opens the connection.
func TestTLSCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cert, pool := selfSigned(t, []string{"dns.example"}, nil)
		dial := pipes(cert, func(n int, c *dns.Conn) {
			if n == 1 {
				time.Sleep(time.Second) // before the handshake
			}
			for {
				req, err := c.ReadMsg()
				if err != nil {
					return
				}
				echoName(connWriter{conn: c}, req)
			}
		})
		r, err := New(Config{Servers: []string{"tls://192.0.2.1#dns.example"}, Roots: pool, Dial: dial, Attempts: 1})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var asking sync.WaitGroup
		asking.Go(func() {
			if _, err := r.TXT(ctx, "a.example"); kindOf(t, err) != Timeout {
				t.Errorf("canceled: %v", err)
			}
		})
		synctest.Wait()
		asking.Go(func() { askTXT(t, r, "b.example") })
		synctest.Wait()
		cancel()
		asking.Wait()
		time.Sleep(2 * connIdle)
	})
}

// TestTLSIDAgain holds that a query that has its answer does not take away that of the next with its id.
func TestTLSIDAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		server := &dns.Conn{Conn: there}
		cs := new(conns)
		c, _ := cs.join()
		cs.join()
		c.dns = &dns.Conn{Conn: here}
		cs.made(c)
		q := new(dns.Msg)
		q.Id = 7
		first := cs.register(c, q)
		server.WriteMsg(q)
		<-first.answer
		second := cs.register(c, q)
		cs.leave(c, 7, first)
		server.WriteMsg(q)
		synctest.Wait()
		select {
		case <-second.answer:
		default:
			t.Error("the second query has no answer")
		}
		cs.leave(c, 7, second)
		there.Close()
		time.Sleep(2 * connIdle)
	})
}

// BenchmarkTLS is one question over TLS after the other, with the server on the same machine.
func BenchmarkTLS(b *testing.B) {
	cert, pool := selfSigned(b, []string{"dns.example"}, nil)
	l := listenTLS(b, cert)
	new(testServer).run(b, &dns.Server{Listener: l, Net: "tcp-tls", Handler: dns.HandlerFunc(echoName), MaxTCPQueries: -1})
	r := newTLSResolver(b, l.Addr().String(), pool)
	b.ReportAllocs()
	for b.Loop() {
		askTXT(b, r, "_mta-sts.example.com")
	}
}
