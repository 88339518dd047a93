package stsfetch

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"stsmap/resolver"
)

const (
	// attemptDelay is how long one address may stay silent before the next
	// one is tried beside it (RFC 8305, Section 5).
	attemptDelay = 250 * time.Millisecond
	// maxAddrs bounds the connections that one retrieval can cause.
	maxAddrs = 8
)

// connect opens a connection to port 443 of host, directly or through the
// proxy.
func (f *Fetcher) connect(ctx context.Context, host string) (net.Conn, error) {
	proxy, err := f.proxyFor(host)
	if err != nil {
		return nil, err
	}
	if proxy != nil {
		return f.connectProxy(ctx, proxy, host)
	}
	answer, err := f.addresses(ctx, host)
	if err != nil {
		return nil, err
	}
	addrs := interleave(answer.Records)
	return f.race(ctx, addrs[:min(len(addrs), maxAddrs)])
}

// proxyFor returns the proxy to go through to host, or nil.
func (f *Fetcher) proxyFor(host string) (*url.URL, error) {
	proxy, err := f.proxy(&http.Request{URL: &url.URL{Scheme: "https", Host: host}})
	if err != nil {
		return nil, at(StepConnect, fmt.Errorf("proxy: %w", err))
	}
	return proxy, nil
}

// addresses looks up host, and has one address at least.
func (f *Fetcher) addresses(ctx context.Context, host string) (answer resolver.Answer[netip.Addr], err error) {
	answer, err = f.resolver.Addr(ctx, host)
	switch {
	case err != nil:
		return answer, at(StepDNS, err)
	case len(answer.Records) > 0:
		return answer, nil
	case answer.NXDomain:
		return answer, atf(StepDNS, "%s does not exist", host)
	}
	return answer, atf(StepDNS, "%s has no address", host)
}

// interleave orders addresses as RFC 8305, Section 4 does: the families take
// turns, IPv6 first.
func interleave(addrs []netip.Addr) []netip.Addr {
	var six, four []netip.Addr
	for _, a := range addrs {
		if a.Is4() {
			four = append(four, a)
		} else {
			six = append(six, a)
		}
	}
	out := make([]netip.Addr, 0, len(addrs))
	for i := range max(len(six), len(four)) {
		if i < len(six) {
			out = append(out, six[i])
		}
		if i < len(four) {
			out = append(out, four[i])
		}
	}
	return out
}

// dialAddr is the only place that dials a policy host. The address checked is
// the address dialled, with no lookup between, so a name that resolves to
// something else the next time gains nothing.
func (f *Fetcher) dialAddr(ctx context.Context, addr netip.Addr) (net.Conn, error) {
	if !public(addr) && !f.allows(addr) {
		return nil, atf(StepBlocked, "%s is not a public address; fetch.allow_private can allow it", addr)
	}
	reportDialed(ctx, addr)
	conn, err := f.dialer(ctx, "tcp", netip.AddrPortFrom(addr, 443).String())
	if err != nil {
		return nil, at(StepConnect, err)
	}
	return conn, nil
}

// race dials addrs in order, each when the one before failed or stayed silent
// for attemptDelay, and returns the first connection. Whoever loses the race
// closes what it opened, and race waits for that: giving up a dial takes no
// time.
func (f *Fetcher) race(ctx context.Context, addrs []netip.Addr) (net.Conn, error) {
	if len(addrs) == 1 {
		return f.dialAddr(ctx, addrs[0])
	}
	var dials sync.WaitGroup
	defer dials.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result)
	start := func(addr netip.Addr) {
		conn, err := f.dialAddr(ctx, addr)
		select {
		case results <- result{conn, err}:
		case <-ctx.Done():
			if conn != nil {
				conn.Close()
			}
		}
	}
	var failure error
	next, running := 0, 0
	timer := time.NewTimer(0)
	defer timer.Stop()
	for next < len(addrs) || running > 0 {
		select {
		case <-timer.C:
			if next < len(addrs) {
				addr := addrs[next]
				dials.Go(func() { start(addr) })
				next, running = next+1, running+1
				timer.Reset(attemptDelay)
			}
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			running--
			failure = worse(failure, r.err)
			timer.Reset(0)
		case <-ctx.Done():
			return nil, at(StepConnect, ctx.Err())
		}
	}
	return nil, failure
}

// worse prefers the failure that says more: that nobody answered tells more
// about a host than that one of its addresses is private.
func worse(old, err error) error {
	if s, ok := errors.AsType[*stepError](err); old != nil && ok && s.step == StepBlocked {
		return old
	}
	return err
}

// proxyFunc turns the setting into the question that connect asks.
func proxyFunc(setting string) (func(*http.Request) (*url.URL, error), error) {
	switch setting {
	case "":
		return http.ProxyURL(nil), nil
	case "env":
		return http.ProxyFromEnvironment, nil
	}
	u, err := url.Parse(setting)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		// Without the value: it may hold a password.
		return nil, errors.New("proxy is neither \"env\" nor like \"http://host:port\"")
	}
	return http.ProxyURL(u), nil
}

// connectProxy asks proxy for a tunnel to host. The name is handed over, not
// an address: proxies decide by name whom they let through.
func (f *Fetcher) connectProxy(ctx context.Context, proxy *url.URL, host string) (net.Conn, error) {
	conn, err := f.dialer(ctx, "tcp", proxyAddr(proxy))
	if err != nil {
		return nil, atf(StepConnect, "proxy: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	tunnel := conn
	if proxy.Scheme == "https" {
		tunnel = proxyConn{tls.Client(conn, &tls.Config{ServerName: proxy.Hostname(), RootCAs: f.roots, MinVersion: tls.VersionTLS12})}
	}
	if err := f.openTunnel(tunnel, proxy, host); err != nil {
		conn.Close()
		return nil, atf(StepConnect, "proxy %s: %w", proxy.Host, err)
	}
	return tunnel, nil
}

// A proxyConn is a TLS connection to a proxy. Close closes the TCP connection
// at once, where that of tls.Conn first sends close_notify and waits up to five
// seconds for a peer that does not read.
type proxyConn struct{ *tls.Conn }

// Close implements net.Conn.
func (c proxyConn) Close() error { return c.NetConn().Close() }

func (f *Fetcher) openTunnel(conn net.Conn, proxy *url.URL, host string) error {
	request := "CONNECT " + host + ":443 HTTP/1.1\r\nHost: " + host + ":443\r\nUser-Agent: " + f.userAgent + "\r\n"
	if user := proxy.User; user != nil {
		password, _ := user.Password()
		credentials := base64.StdEncoding.EncodeToString([]byte(user.Username() + ":" + password))
		request += "Proxy-Authorization: Basic " + credentials + "\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		return err
	}
	// Byte by byte up to the empty line: whatever follows belongs to the
	// policy host, and a buffered reader would swallow it.
	limited := &io.LimitedReader{R: conn, N: maxHeader}
	resp, err := http.ReadResponse(bufio.NewReaderSize(oneByte{limited}, 16), &http.Request{Method: http.MethodConnect})
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("refused with status %d", resp.StatusCode)
	}
	return nil
}

// oneByte never reads ahead of what is asked for.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(len(p), 1)]) }

func proxyAddr(proxy *url.URL) string {
	if proxy.Port() != "" {
		return proxy.Host
	}
	port := "80"
	if proxy.Scheme == "https" {
		port = "443"
	}
	return net.JoinHostPort(proxy.Hostname(), port)
}
