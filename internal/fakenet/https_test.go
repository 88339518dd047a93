package fakenet

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// client is a plain HTTP client that follows nothing and asks for no compression.
func client(n *Net, sni string) *http.Client {
	transport := &http.Transport{
		DisableKeepAlives:  true,
		DisableCompression: true,
		TLSClientConfig:    &tls.Config{RootCAs: n.Roots(), MinVersion: tls.VersionTLS10},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return n.Dial(ctx, network, n.HTTPSAddr(host))
		},
	}
	if sni != "" {
		transport.TLSClientConfig.ServerName = sni
	}
	return &http.Client{
		Transport:     transport,
		Timeout:       time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// get returns the answer of a policy host with its body.
func get(t *testing.T, n *Net, host string) (*http.Response, []byte, error) {
	t.Helper()
	resp, err := client(n, "").Get("https://" + host + wellKnown)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

const policies = `
-- policy/p --
version: STSv1
-- policy-crlf/c --
version: STSv1
mode: none
-- policy-quoted/q --
"\ufeffa\x00\xff"
`

// TestAnswersHTTP sees each word that changes an answer.
func TestAnswersHTTP(t *testing.T) {
	t.Parallel()
	lf, crlf := "version: STSv1\n", "version: STSv1\r\nmode: none\r\n"
	for _, c := range []struct {
		words  string
		status int
		header string // that must be there, "" for none
		body   string
	}{
		{"policy=p", 200, "Content-Type: text/plain", lf},
		{"policy=c", 200, "Content-Length: 28", crlf},
		{"policy=q", 200, "", "\ufeffa\x00\xff"},
		{"", 404, "", ""},
		{"policy=p status=500", 500, "", lf},
		{"policy=p status=204", 204, "", ""},
		{"policy=p redirect=https://www.example.com/", 302, "Location: https://www.example.com/", lf},
		{"status=301 redirect=https://www.example.com/", 301, "Location: https://www.example.com/", ""},
		{"policy=p type=text/html", 200, "Content-Type: text/html", lf},
		{`policy=p type="TEXT/Plain; charset=\"utf-8\""`, 200, `Content-Type: TEXT/Plain; charset="utf-8"`, lf},
		{"policy=p notype", 200, "Content-Type: ", lf},
		{`policy=p header="Cache-Control: no-store"`, 200, "Cache-Control: no-store", lf},
		{"policy=c chunked", 200, "Content-Length: ", crlf},
		{"policy=p size=65536", 200, "Content-Length: 65536", lf + "x_padding: " + strings.Repeat("x", 65536-26)},
		{"policy=p drip=1ms delay=1ms", 200, "", lf},
		{"policy=p direct", 200, "", lf},
		{"policy=p cert=wildcard", 200, "", lf},
		{"policy=p cert=name=mta-sts.example.com", 200, "", lf},
		{"policy=p tls=1.1", 200, "", lf},
		{"policy=p sni=required", 200, "", lf},
	} {
		n := open(t, "-- https --\nmta-sts.example.com addr=127.0.0.2 "+c.words+"\n"+policies)
		resp, body, err := get(t, n, "mta-sts.example.com")
		if err != nil {
			t.Errorf("%s: %v", c.words, err)
			continue
		}
		key, value, _ := strings.Cut(c.header, ": ")
		if resp.StatusCode != c.status || resp.Header.Get(key) != value || string(body) != c.body {
			t.Errorf("%s: got %d %q %.100q", c.words, resp.StatusCode, resp.Header, body)
		}
		if strings.Contains(c.words, "tls=") && resp.TLS.Version != tls.VersionTLS11 {
			t.Errorf("%s: version %s", c.words, tls.VersionName(resp.TLS.Version))
		}
		if chain := len(resp.TLS.VerifiedChains[0]); (chain == 2) != strings.HasSuffix(c.words, " direct") {
			t.Errorf("%s: chain of %d", c.words, chain)
		}
		if r, h := n.Requests("mta-sts.example.com"), n.Handshakes("MTA-STS.example.com."); r != 1 || h != 1 {
			t.Errorf("%s: counted %d requests, %d handshakes", c.words, r, h)
		}
	}
}

// TestGzip sends compressed text to clients that did not ask for it.
func TestGzip(t *testing.T) {
	t.Parallel()
	n := open(t, "-- https --\nmta-sts.example.com addr=127.0.0.2 policy=p gzip\n"+policies)
	resp, body, err := get(t, n, "mta-sts.example.com")
	if err != nil || resp.Header.Get("Content-Encoding") != "gzip" || !bytes.HasPrefix(body, []byte("\x1f\x8b")) {
		t.Errorf("%v, %q, %v", resp, body, err)
	}
}

// TestBadCertificates expects the error of crypto/x509 for each kind of certificate.
func TestBadCertificates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ words, want string }{
		{"cert=expired", "certificate has expired or is not yet valid: current time"},
		{"cert=notyet", "is before"},
		{"cert=selfsigned", "unknown authority"},
		{"cert=otherca", "unknown authority"},
		{"cert=othername", "certificate is valid for othername.invalid"},
		{"cert=name=www.example.com", "certificate is valid for www.example.com"},
		{"cert=wildcard=*.example.org", "certificate is valid for *.example.org"},
		{"cert=cnonly", "certificate relies on legacy Common Name field"},
		{"tls=fail", "remote error: tls"},
	} {
		n := open(t, "-- https --\nmta-sts.example.com addr=127.0.0.2 policy=p "+c.words+"\n"+policies)
		if _, _, err := get(t, n, "mta-sts.example.com"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.words, err)
		}
		if r, h := n.Requests("mta-sts.example.com"), n.Handshakes("mta-sts.example.com"); r != 0 || h != 1 {
			t.Errorf("%s: counted %d requests, %d handshakes", c.words, r, h)
		}
	}
}

// TestTLSVersion is the view of a client that wants TLS 1.2.
func TestTLSVersion(t *testing.T) {
	t.Parallel()
	n := open(t, "-- https --\nmta-sts.example.com addr=127.0.0.2 tls=1.1\n")
	c := tls.Client(dial(t, "tcp", n.HTTPSAddr("mta-sts.example.com")), &tls.Config{RootCAs: n.Roots(), ServerName: "mta-sts.example.com"})
	if err := c.Handshake(); err == nil {
		t.Errorf("handshake with version %s", tls.VersionName(c.ConnectionState().Version))
	}
}

// TestSharedAddress selects by SNI and Host.
func TestSharedAddress(t *testing.T) {
	t.Parallel()
	n := open(t, `
-- https --
first.example.com addr=127.0.0.2 policy=p
second.example.com addr=127.0.0.2 policy=c sni=required
`+policies)
	if _, body, err := get(t, n, "second.example.com"); err != nil || !strings.Contains(string(body), "mode") {
		t.Errorf("second host: %q, %v", body, err)
	}
	for _, c := range []struct{ sni, want string }{{"", "first.example.com"}, {"third.example.com", "first.example.com"}, {"second.example.com", "second.example.com"}} {
		conn := tls.Client(dial(t, "tcp", n.HTTPSAddr("first.example.com")), &tls.Config{InsecureSkipVerify: true, ServerName: c.sni})
		if err := conn.Handshake(); err != nil {
			t.Fatal(err)
		}
		if err := conn.ConnectionState().PeerCertificates[0].VerifyHostname(c.want); err != nil {
			t.Errorf("SNI %q: %v", c.sni, err)
		}
		conn.Close()
	}
	if got := n.Handshakes("first.example.com"); got != 2 {
		t.Errorf("handshakes of the first host: %d, want 2", got)
	}
	resp, err := client(n, "first.example.com").Get("https://first.example.com/other")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("other path: %s", resp.Status)
	}
}

// TestSNIRequired: a handshake without SNI is refused.
func TestSNIRequired(t *testing.T) {
	t.Parallel()
	n := open(t, "-- https --\nmta-sts.example.com addr=127.0.0.2 sni=required\n")
	c := tls.Client(dial(t, "tcp", n.HTTPSAddr("mta-sts.example.com")), &tls.Config{InsecureSkipVerify: true})
	if err := c.Handshake(); err == nil {
		t.Error("handshake without SNI")
	}
}

// TestBrokenAnswers ends connections where a client does not expect it.
func TestBrokenAnswers(t *testing.T) {
	t.Parallel()
	for words, want := range map[string]error{
		"reset":            syscall.ECONNRESET,
		"truncate":         io.ErrUnexpectedEOF,
		"truncate chunked": io.ErrUnexpectedEOF,
	} {
		n := open(t, "-- https --\nmta-sts.example.com addr=127.0.0.2 policy=c "+words+"\n"+policies)
		if resp, body, err := get(t, n, "mta-sts.example.com"); !errors.Is(err, want) {
			t.Errorf("%s: %v %q %v", words, resp, body, err)
		}
		if got := n.Requests("mta-sts.example.com"); got != 1 {
			t.Errorf("%s: %d requests", words, got)
		}
	}
}

// TestStalls finds out how far a connection gets. Close ends what is stalled, since a deadline would be a
// guess.
func TestStalls(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		stage                string
		handshakes, requests int
		some                 string
	}{
		{"accept", 0, 0, ""},
		{"tls", 1, 0, ""},
		{"headers", 1, 1, ""},
		{"body", 1, 1, "HTTP/1.1 200"},
	} {
		n := open(t, "-- https --\nmta-sts.example.com addr=127.0.0.2 policy=p stall="+c.stage+"\n"+policies)
		raw := dial(t, "tcp", n.HTTPSAddr("mta-sts.example.com"))
		seen := make(chan string, 1)
		go func() { seen <- converse(raw, n.Roots()) }()
		for n.Handshakes("mta-sts.example.com") < c.handshakes || n.Requests("mta-sts.example.com") < c.requests {
			time.Sleep(time.Millisecond)
		}
		if c.some == "" {
			select {
			case got := <-seen:
				t.Errorf("stall=%s: got %q before the end", c.stage, got)
			case <-time.After(20 * time.Millisecond):
			}
		} else if got := <-seen; !strings.HasPrefix(got, c.some) {
			t.Errorf("stall=%s: got %q", c.stage, got)
		}
		n.Close()
	}
}

// converse does a handshake and a request, and returns the first bytes of the answer.
func converse(raw net.Conn, roots *x509.CertPool) string {
	c := tls.Client(raw, &tls.Config{RootCAs: roots, ServerName: "mta-sts.example.com"})
	if _, err := io.WriteString(c, "GET "+wellKnown+" HTTP/1.1\r\nHost: mta-sts.example.com:443\r\n\r\n"); err != nil {
		return ""
	}
	buf := make([]byte, 4096)
	size, _ := c.Read(buf)
	return string(buf[:size])
}

// TestKeepAlive has several requests on one connection, and HEAD.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	n := open(t, "-- https --\nmta-sts.example.com addr=127.0.0.2 policy=p\n"+policies)
	c := client(n, "")
	c.Transport.(*http.Transport).DisableKeepAlives = false
	defer c.CloseIdleConnections()
	for _, method := range []string{"GET", "HEAD", "GET"} {
		req, err := http.NewRequestWithContext(t.Context(), method, "https://mta-sts.example.com"+wellKnown, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || (len(body) == 0) != (method == "HEAD") {
			t.Errorf("%s: %s %q %v", method, resp.Status, body, err)
		}
	}
	if r, h := n.Requests("mta-sts.example.com"), n.Handshakes("mta-sts.example.com"); r != 3 || h != 1 {
		t.Errorf("%d requests in %d handshakes", r, h)
	}
}

// TestShuns: a policy host can refuse clients by their User-Agent.
func TestShuns(t *testing.T) {
	t.Parallel()
	n := open(t, "-- https --\nmta-sts.example.com addr=127.0.0.2 policy=p shuns=stsmap\n-- policy/p --\nversion: STSv1\n")
	for agent, want := range map[string]int{"stsmap/1.0": http.StatusForbidden, "Mozilla/5.0": http.StatusOK} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://mta-sts.example.com/.well-known/mta-sts.txt", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("User-Agent", agent)
		resp, err := client(n, "").Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %s", agent, resp.Status)
		}
	}
}
