package check

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/textproto"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"stsmap/dane"
)

const (
	// maxTalk bounds what is read of an MX host before TLS, in bytes.
	maxTalk = 64 << 10
	// talkLimit is how long one conversation may take: as long as Postfix waits
	// for a connection, which some hosts keep waiting on purpose.
	talkLimit = 30 * time.Second
	// maxNames is how many names of a certificate a finding lists.
	maxNames = 20
)

// A stage is how far a conversation with an MX host came.
type stage uint8

const (
	dialling stage = iota // the connection
	greeting              // up to EHLO
	offering              // STARTTLS is not offered, or refused
	shaking               // the handshake
	secured               // all is well
)

// A talk is a conversation with an MX host at one address.
type talk struct {
	addr  netip.Addr
	stage stage // that it ended in
	err   error // why; nil if it is secured
	took  time.Duration

	version uint16
	certs   []*x509.Certificate

	verdict []fault // filled in by judging: what is wrong with it
}

// converse talks with a host at its addresses, all at the same time.
func (l *look) converse(ctx context.Context, h *host) {
	addrs := h.addrs.Records[:min(len(h.addrs.Records), maxAddresses)]
	var wg sync.WaitGroup
	for _, a := range addrs {
		t := &talk{addr: a}
		h.talks = append(h.talks, t)
		wg.Go(func() {
			began := time.Now()
			t.stage, t.err = t.talk(ctx, l.c.Dial, h.name, port(l.hop))
			t.took = time.Since(began)
		})
	}
	wg.Wait()
}

// port is where the hosts of a next-hop are asked.
func port(hop dane.NextHop) uint16 {
	if hop.Port == 0 {
		return 25
	}
	return hop.Port
}

// talk does what smtp(8) does up to the end of the handshake, without sending
// mail. Certificates are looked at later: here the host is not trusted with
// anything.
func (t *talk) talk(ctx context.Context, dial func(ctx context.Context, network, addr string) (net.Conn, error), host string, port uint16) (stage, error) {
	ctx, cancel := context.WithTimeout(ctx, talkLimit)
	defer cancel()
	conn, err := dial(ctx, "tcp", netip.AddrPortFrom(t.addr, port).String())
	if err != nil {
		return dialling, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	plain := textproto.NewConn(bounded{io.LimitReader(conn, maxTalk), conn})
	if stage, err := startTLS(plain); err != nil {
		return stage, err
	}
	// TLS 1.0 too, which Postfix may still accept: the finding names the
	// version, which a failed handshake would hide.
	secure := tls.Client(conn, &tls.Config{ServerName: host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, CipherSuites: ciphers()})
	if err := secure.HandshakeContext(ctx); err != nil {
		return shaking, err
	}
	state := secure.ConnectionState()
	t.version, t.certs = state.Version, state.PeerCertificates
	if len(t.certs) == 0 {
		return shaking, errors.New("no certificate was sent")
	}
	_, _ = io.WriteString(secure, "QUIT\r\n")
	return secured, nil
}

// ciphers are all that crypto/tls knows: what it leaves out by default, such as the
// exchange of keys with RSA, Postfix still uses.
func ciphers() (ids []uint16) {
	for _, c := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		ids = append(ids, c.ID)
	}
	return ids
}

// startTLS speaks SMTP until the handshake can begin.
func startTLS(c *textproto.Conn) (stage, error) {
	if _, _, err := c.ReadResponse(220); err != nil {
		return greeting, err
	}
	name, err := os.Hostname()
	if err != nil || name == "" {
		name = "localhost"
	}
	if err := c.PrintfLine("EHLO %s", name); err != nil {
		return greeting, err
	}
	_, text, err := c.ReadResponse(250)
	if err != nil {
		return greeting, err
	}
	offered := false
	for line := range strings.Lines(text) {
		offered = offered || strings.EqualFold(strings.TrimSpace(line), "STARTTLS")
	}
	if !offered {
		_ = c.PrintfLine("QUIT")
		return offering, errors.New("STARTTLS is not offered")
	}
	if err := c.PrintfLine("STARTTLS"); err != nil {
		return offering, err
	}
	if _, _, err := c.ReadResponse(220); err != nil {
		return offering, fmt.Errorf("STARTTLS is refused: %w", err)
	}
	return secured, nil
}

// bounded is a connection of which not everything is read.
type bounded struct {
	io.Reader
	net.Conn
}

func (b bounded) Read(p []byte) (int, error) { return b.Reader.Read(p) }

// report is a talk for the report.
func (t *talk) report() Conversation {
	c := Conversation{Address: t.addr.String(), Seconds: seconds(t.took), STARTTLS: t.stage > offering}
	if t.err != nil {
		c.Error = printable(t.err.Error())
	}
	if t.version != 0 {
		c.TLS = tls.VersionName(t.version)
	}
	if len(t.certs) == 0 {
		return c
	}
	leaf := t.certs[0]
	for _, n := range leaf.DNSNames[:min(len(leaf.DNSNames), maxNames)] {
		c.Names = append(c.Names, printable(n))
	}
	c.Issuer, c.Expires = printable(leaf.Issuer.String()), new(leaf.NotAfter)
	return c
}

// where names the place of a talk.
func (t *talk) where(h *host) string {
	if len(h.talks) == 1 {
		return h.name
	}
	return h.name + " [" + t.addr.String() + "]"
}

// tlsaName is where the TLSA records of a host are (RFC 7672, Section 2.2.3).
func tlsaName(hop dane.NextHop, base string) string {
	return "_" + strconv.Itoa(int(port(hop))) + "._tcp." + base
}
