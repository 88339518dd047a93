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
	"net/url"

	"golang.org/x/net/http/httpproxy"
	netproxy "golang.org/x/net/proxy"
)

// proxySetting is what Config.Proxy means: which proxy to use for a host. A nil
// URL means none.
type proxySetting func(*url.URL) (*url.URL, error)

// CheckProxy returns an error that says what is wrong with a setting of
// Config.Proxy, or nil. With "env" it reads the environment as New does. The error
// never contains the setting, which may have a password.
func CheckProxy(setting string) error {
	_, err := newProxySetting(setting)
	return err
}

// newProxySetting reads a setting of Config.Proxy.
func newProxySetting(setting string) (proxySetting, error) {
	switch setting {
	case "":
		return func(*url.URL) (*url.URL, error) { return nil, nil }, nil
	case "env":
		return environmentProxy()
	}
	u, err := parseProxy(setting)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	return func(*url.URL) (*url.URL, error) { return u, nil }, nil
}

// environmentProxy reads HTTPS_PROXY and NO_PROXY. Package httpproxy decides for
// which hosts the proxy is used, but for a proxy that it cannot parse it decides
// to use none: then every policy host would be connected to directly, from a
// network whose administrator wants the opposite.
func environmentProxy() (proxySetting, error) {
	environment := httpproxy.FromEnvironment()
	if value := environment.HTTPSProxy; value != "" {
		u, err := parseProxy(value)
		if err != nil {
			// As curl does: a value without a scheme is an HTTP proxy.
			if u, err = parseProxy("http://" + value); err != nil || hasScheme(value) {
				_, err = parseProxy(value)
				return nil, fmt.Errorf("proxy of HTTPS_PROXY in the environment: %w", err)
			}
		}
		environment.HTTPSProxy = u.String()
	}
	return environment.ProxyFunc(), nil
}

// hasScheme reports whether a proxy is written as a URL.
func hasScheme(value string) bool {
	u, err := url.Parse(value)
	return err == nil && u.Host != ""
}

// parseProxy parses the URL of a proxy.
func parseProxy(setting string) (*url.URL, error) {
	const want = `must be "http://host:port", "https://host:port" or "socks5://host:port"`
	u, err := url.Parse(setting)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5" && u.Scheme != "socks5h":
		return nil, errors.New("not the URL of a proxy; " + want)
	case u.Hostname() == "":
		return nil, errors.New("no host; " + want)
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("more than a host and a port; " + want)
	case isSocks(u) && u.User != nil && (u.User.Username() == "" || len(u.User.Username()) > 255 || passwordLen(u.User) > 255):
		// RFC 1929, Section 2
		return nil, errors.New("user and password of a SOCKS proxy must have 1 to 255 bytes")
	}
	return u, nil
}

func passwordLen(user *url.Userinfo) int {
	password, _ := user.Password()
	return len(password)
}

// isSocks reports whether proxy speaks SOCKS version 5 (RFC 1928). "socks5h" is how
// curl spells a proxy that resolves names, which every one does here.
func isSocks(proxy *url.URL) bool { return proxy.Scheme == "socks5" || proxy.Scheme == "socks5h" }

// proxyFor returns the proxy for host, or nil.
func (f *Fetcher) proxyFor(host string) (*url.URL, error) {
	if f.proxyErr != nil {
		return nil, stepErr(StepConnect, f.proxyErr)
	}
	proxy, err := f.proxy(&url.URL{Scheme: "https", Host: host})
	if err != nil {
		return nil, stepErr(StepConnect, fmt.Errorf("proxy: %w", err))
	}
	return proxy, nil
}

// connectProxy asks proxy for a connection to host. The name is passed on, not an
// address: proxies decide by name which hosts they allow. It takes no longer than
// the part of the timeout for connecting.
func (f *Fetcher) connectProxy(ctx context.Context, proxy *url.URL, host string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout/budgetShare)
	defer cancel()
	if isSocks(proxy) {
		return f.connectSocks(ctx, proxy, host)
	}
	conn, err := f.dial(ctx, "tcp", proxyAddr(proxy))
	if err != nil {
		return nil, stepErrf(StepConnect, "proxy: %w", err)
	}
	stop := interrupt(ctx, conn)
	tunnel := conn
	if proxy.Scheme == "https" {
		tunnel = proxyConn{tls.Client(conn, &tls.Config{ServerName: proxy.Hostname(), RootCAs: f.anchors.Pool(), MinVersion: tls.VersionTLS12})}
	}
	err = f.openTunnel(tunnel, proxy, host)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, stepErrf(StepConnect, "proxy %s: %w", proxy.Host, err)
	}
	return tunnel, nil
}

// connectSocks is connectProxy for a SOCKS proxy.
func (f *Fetcher) connectSocks(ctx context.Context, u *url.URL, host string) (net.Conn, error) {
	var auth *netproxy.Auth
	if u.User != nil {
		password, _ := u.User.Password()
		auth = &netproxy.Auth{User: u.User.Username(), Password: password}
	}
	socks, err := netproxy.SOCKS5("tcp", proxyAddr(u), auth, dialFunc(f.dial))
	if err != nil {
		return nil, stepErrf(StepConnect, "proxy %s: %w", u.Host, err)
	}
	conn, err := socks.(netproxy.ContextDialer).DialContext(ctx, "tcp", net.JoinHostPort(host, "443"))
	if err != nil {
		return nil, stepErrf(StepConnect, "proxy: %w", err)
	}
	return conn, nil
}

// A dialFunc is the dialer that package netproxy wants.
type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// Dial implements netproxy.Dialer, and is not called.
func (d dialFunc) Dial(network, addr string) (net.Conn, error) {
	return d(context.Background(), network, addr)
}

// DialContext implements netproxy.ContextDialer.
func (d dialFunc) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return d(ctx, network, addr)
}

// A proxyConn is a TLS connection to a proxy. Close closes the TCP connection
// at once, where that of tls.Conn first sends close_notify and waits up to five
// seconds for a peer that does not read.
type proxyConn struct{ *tls.Conn }

// Close implements net.Conn.
func (c proxyConn) Close() error { return c.NetConn().Close() }

// openTunnel sends a CONNECT request for host over conn and reads the response.
func (f *Fetcher) openTunnel(conn net.Conn, proxy *url.URL, host string) error {
	addr := net.JoinHostPort(host, "443")
	request := &http.Request{
		Method: http.MethodConnect,
		URL:    &url.URL{Host: addr},
		Host:   addr,
		Header: http.Header{"User-Agent": {f.userAgent}},
	}
	if user := proxy.User; user != nil {
		password, _ := user.Password()
		credentials := base64.StdEncoding.EncodeToString([]byte(user.Username() + ":" + password))
		request.Header.Set("Proxy-Authorization", "Basic "+credentials)
	}
	if err := request.Write(conn); err != nil {
		return err
	}
	// Byte by byte up to the empty line: the rest belongs to the policy host, and a
	// buffered reader would consume it.
	limited := &io.LimitedReader{R: conn, N: maxHeader}
	resp, err := http.ReadResponse(bufio.NewReaderSize(oneByte{limited}, 16), request)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("refused with status %d", resp.StatusCode)
	}
	return nil
}

// A oneByte reader reads one byte at a time, so that a buffer never reads ahead.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(len(p), 1)]) }

// proxyAddr returns the address of a proxy, with the usual port if it has none.
func proxyAddr(proxy *url.URL) string {
	port := proxy.Port()
	switch {
	case port != "":
	case proxy.Scheme == "https":
		port = "443"
	case isSocks(proxy):
		port = "1080"
	default:
		port = "80"
	}
	return net.JoinHostPort(proxy.Hostname(), port)
}
