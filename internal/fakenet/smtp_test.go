package fakenet

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net"
	"net/smtp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// submit sends a message as a plain client, over TLS if there is a configuration for it.
func submit(n *Net, host string, conf *tls.Config) error {
	raw, err := net.Dial("tcp", n.SMTPAddr(host))
	if err != nil {
		return err
	}
	defer raw.Close()
	c, err := smtp.NewClient(raw, host)
	if err != nil {
		return err
	}
	if err := c.Hello("client.example"); err != nil {
		return err
	}
	if conf != nil {
		if err := c.StartTLS(conf); err != nil {
			return err
		}
	}
	if err := c.Mail("a@client.example"); err != nil {
		return err
	}
	for _, to := range []string{"b@example.com", "c@example.com"} {
		if err := c.Rcpt(to); err != nil {
			return err
		}
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte("Subject: x\r\n\r\n.dot\r\n")); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return c.Quit()
}

// TestDelivery keeps what was sent, and how.
func TestDelivery(t *testing.T) {
	t.Parallel()
	n := open(t, "-- smtp --\nmx.example.com addr=127.0.0.2 names=alias.example.com\n")
	want := Message{
		To:   []string{"b@example.com", "c@example.com"},
		Data: []byte("Subject: x\r\n\r\n.dot\r\n"),
	}
	secure := want
	secure.TLS, secure.SNI = true, "alias.example.com"
	if err := submit(n, "mx.example.com", nil); err != nil {
		t.Fatal(err)
	}
	if err := submit(n, "mx.example.com", &tls.Config{RootCAs: n.Roots(), ServerName: "alias.example.com"}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Message{want, secure}, n.Messages("MX.example.com.")); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

// TestRefusals sees each word that makes mail fail.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		words  string
		secure bool
		want   string // in the error; empty: the message is accepted
	}{
		{"", true, ""},
		{"cert=wildcard", true, ""},
		{"cert=wildcard=*.example.com", true, ""},
		{"cert=expired", true, "expired"},
		{"cert=selfsigned", true, "unknown authority"},
		{"cert=othername", true, "othername.invalid"},
		{"cert=wildcard=*.example.net", true, "*.example.net"},
		{"cert=none", true, "TLS not supported"},
		{"cert=none", false, ""},
		{"tls=fail", true, "tls: "},
		{"tls=fail", false, ""},
		{"tls=1.1", true, "protocol version"},
	} {
		n := open(t, "-- smtp --\nmx.example.com addr=127.0.0.2 "+c.words+"\n")
		var conf *tls.Config
		if c.secure {
			conf = &tls.Config{RootCAs: n.Roots(), ServerName: "mx.example.com"}
		}
		err := submit(n, "mx.example.com", conf)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q, TLS %t: %v", c.words, c.secure, err)
		}
		if got := len(n.Messages("mx.example.com")); (got == 1) != (c.want == "") {
			t.Errorf("%q: %d messages", c.words, got)
		}
	}
}

// TestRequireTLS sees REQUIRETLS offered where the description says so, and only under TLS (RFC 8689, Section 4.1).
func TestRequireTLS(t *testing.T) {
	t.Parallel()
	n := open(t, "-- smtp --\nmx.example.com addr=127.0.0.2 requiretls\nmx.example.net addr=127.0.0.3\n")
	for _, c := range []struct {
		host   string
		secure bool
		want   bool
	}{
		{"mx.example.com", true, true},
		{"mx.example.com", false, false},
		{"mx.example.net", true, false},
	} {
		client, err := smtp.Dial(n.SMTPAddr(c.host))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if c.secure {
			if err := client.StartTLS(&tls.Config{RootCAs: n.Roots(), ServerName: c.host}); err != nil {
				t.Fatal(err)
			}
		}
		if offered, _ := client.Extension("REQUIRETLS"); offered != c.want {
			t.Errorf("%s, TLS %t: offered: %t", c.host, c.secure, offered)
		}
		if !c.want {
			continue
		}
		for _, command := range []struct {
			code int
			text string
		}{
			{250, "MAIL FROM:<a@client.example> REQUIRETLS"},
			{250, "RCPT TO:<b@example.com>"},
			{354, "DATA"},
			{250, "Subject: x\r\n\r\n."},
		} {
			if _, err := client.Text.Cmd("%s", command.text); err != nil {
				t.Fatal(err)
			}
			if _, _, err := client.Text.ReadResponse(command.code); err != nil {
				t.Fatalf("%s: %v", command.text, err)
			}
		}
		if got := n.Messages(c.host); len(got) != 1 {
			t.Errorf("messages: %+v", got)
		}
	}
}

// TestTLSA compares the records with the certificates that are shown.
func TestTLSA(t *testing.T) {
	t.Parallel()
	n := open(t, `
-- dns --
!tlsa mx.example.com 3 1 1
!tlsa mx.example.com 2 0 1
-- smtp --
mx.example.com addr=127.0.0.2 cert=selfsigned
mx2.example.com addr=127.0.0.3
`)
	var want []string
	for _, host := range []string{"mx.example.com", "mx2.example.com"} {
		var chain []*x509.Certificate
		conf := &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error {
			chain = s.PeerCertificates
			return nil
		}}
		if err := submit(n, host, conf); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(chain[0].RawSubjectPublicKeyInfo)
		if host == "mx2.example.com" {
			sum = sha256.Sum256(chain[1].Raw)
		}
		want = append(want, hex.EncodeToString(sum[:]))
	}
	var got []string
	for _, rr := range ask(t, n, "udp", "_25._tcp.mx.example.com.", dns.TypeTLSA).Answer {
		got = append(got, rr.(*dns.TLSA).Certificate)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if data, err := n.TLSA("MX.example.com.", 3, 1, 1); err != nil || data != "3 1 1 "+want[0] {
		t.Errorf("TLSA: got %q, %v, want the data of the first record", data, err)
	}
	if data, err := n.TLSA("mx3.example.com", 3, 1, 1); err == nil {
		t.Errorf("TLSA of a host that is not there: %q", data)
	}
}

// TestSilent: a dial of a silent address ends with its context.
func TestSilent(t *testing.T) {
	t.Parallel()
	n := open(t, "-- https --\nmta-sts.example.com addr=127.0.0.2 silent\n-- smtp --\nmx.example.com addr=127.0.0.3 silent\n")
	for _, addr := range []string{"127.0.0.2:443", "127.0.0.3:25"} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := n.Dial(ctx, "tcp", addr)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", addr, err)
		}
	}
}
