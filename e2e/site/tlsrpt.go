package site

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// tlsrptSocket is where the collector listens, as smtp_tlsrpt_socket_name says it: relative to the queue directory,
// which is where smtp(8) stands whether it is in its jail or not.
const tlsrptSocket = "run/tlsrpt.sock"

// A PolicyType is the "policy-type" of a report, as libtlsrpt numbers them (tlsrpt.h).
type PolicyType int

// String returns the word of RFC 8460, Section 4.4.
func (t PolicyType) String() string {
	switch t {
	case 1:
		return "tlsa"
	case 2:
		return "sts"
	case 9:
		return "no-policy-found"
	}
	return fmt.Sprintf("policy type %d", int(t))
}

// A FailureCode is the "result-type" of a failure, as libtlsrpt numbers them (tlsrpt.h).
type FailureCode int

// String returns the word of RFC 8460, Section 4.3.
func (c FailureCode) String() string {
	switch c {
	case 201:
		return "starttls-not-supported"
	case 202:
		return "certificate-host-mismatch"
	case 203:
		return "certificate-not-trusted"
	case 204:
		return "certificate-expired"
	case 205:
		return "validation-failure"
	case 301:
		return "sts-policy-fetch-error"
	case 302:
		return "sts-policy-invalid"
	case 303:
		return "sts-webpki-invalid"
	case 304:
		return "tlsa-invalid"
	case 305:
		return "dnssec-invalid"
	case 306:
		return "dane-required"
	}
	return fmt.Sprintf("failure %d", int(c))
}

// A Report is what Postfix tells the collector of one TLS handshake, or of what kept it from one. There is none for a
// delivery over a connection that was open already, nor for an MX host that no pattern matches: Postfix does not
// connect to it. Where a handshake resumes an earlier session, smtp_tlsrpt_skip_reused_handshakes decides.
type Report struct {
	Version  string           `json:"dpv"` // of the datagram, from libtlsrpt 0.5.1 on; empty: an earlier one
	Domain   string           `json:"d"`   // of the recipient
	Record   string           `json:"pr"`  // the TXT record of _smtp._tls
	Policies []ReportedPolicy `json:"policies"`
}

// A ReportedPolicy is the policy that a session was held against, and how it ended.
type ReportedPolicy struct {
	Type     PolicyType        `json:"policy-type"`
	Domain   string            `json:"policy-domain"`
	Strings  []string          `json:"policy-string"`
	MX       []string          `json:"mx-host"`
	Failures []ReportedFailure `json:"failure-details"`
	Count    int               `json:"t"` // of Failures
	Failed   int               `json:"f"` // 1 if there was no session in the end, else 0
}

// A ReportedFailure is one thing that went wrong. Postfix leaves out what it does not know.
type ReportedFailure struct {
	Code   FailureCode `json:"c"`
	Sender string      `json:"s"` // our address
	MX     string      `json:"n"` // name of the MX host
	Helo   string      `json:"h"` // all of its answer to EHLO, with the codes
	Addr   string      `json:"r"` // its address
	Info   string      `json:"a"`
	Reason string      `json:"f"`
}

// String puts a report in a line: for each policy its type and domain, then "ok" or "failed" with the failures, then
// patterns and strings.
//
//	sts example.com failed certificate-expired; mx "mx.example.com"; "version: STSv1" "mode: enforce"
func (r Report) String() string {
	var policies []string
	for _, p := range r.Policies {
		text := p.Type.String() + " " + p.Domain
		if p.Failed == 0 {
			text += " ok"
		} else {
			text += " failed"
		}
		for _, f := range p.Failures {
			text += " " + f.Code.String()
		}
		if len(p.MX) > 0 {
			text += "; mx " + quote(p.MX)
		}
		if len(p.Strings) > 0 {
			text += "; " + quote(p.Strings)
		}
		policies = append(policies, text)
	}
	return strings.Join(policies, " | ")
}

func quote(words []string) string {
	return strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%q", words), "["), "]")
}

// DecodeReport decodes a datagram of libtlsrpt. A key that is not known here, and text that is not UTF-8, are errors.
func DecodeReport(datagram []byte) (Report, error) {
	// libtlsrpt copies what is not ASCII as it stands, and package json would mend it.
	if !utf8.Valid(datagram) {
		return Report{}, fmt.Errorf("tlsrpt: not UTF-8: %q", datagram)
	}
	var r Report
	d := json.NewDecoder(bytes.NewReader(datagram))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return Report{}, fmt.Errorf("tlsrpt: %w: %q", err, datagram)
	}
	if rest := datagram[d.InputOffset():]; len(rest) > 0 {
		return Report{}, fmt.Errorf("tlsrpt: more after the report: %q", rest)
	}
	return r, nil
}

// A Collector takes the reports of a Postfix, as that of tlsrpt-reporter would. It is used by one goroutine at a time.
type Collector struct {
	conn    *net.UnixConn
	reading sync.WaitGroup // collect
	empty   chan struct{}  // gets something for each empty datagram; libtlsrpt sends none

	mu      sync.Mutex // guards what follows
	reports []Report   // the ones not taken yet
	err     error      // of what could not be read
}

// Collect listens for the reports of p, which sends some when it is configured with what ReportTo returns.
func Collect(p *Postfix) (*Collector, error) {
	return collectAt(filepath.Join(p.Jail, tlsrptSocket))
}

// ReportTo returns the settings with which a Postfix, from 3.10 on, tells its Collector.
func ReportTo() []string {
	return []string{"smtp_tlsrpt_enable = yes", "smtp_tlsrpt_socket_name = " + tlsrptSocket}
}

func collectAt(path string) (*Collector, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil { // smtp(8) is not root
		return nil, errors.Join(err, conn.Close())
	}
	c := &Collector{conn: conn, empty: make(chan struct{}, 1)}
	c.reading.Go(c.collect)
	return c, nil
}

// collect reads until the socket is closed. It never rests: the queue of such a socket is short, and libtlsrpt does
// not wait.
func (c *Collector) collect() {
	buf := make([]byte, 1<<20) // more than the kernel lets through
	for {
		n, err := c.conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && n == 0 {
			c.empty <- struct{}{}
			continue
		}
		c.add(buf[:n], err)
		if err != nil {
			return
		}
	}
}

func (c *Collector) add(datagram []byte, err error) {
	var r Report
	if err == nil {
		r, err = DecodeReport(datagram)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.err = errors.Join(c.err, err)
		return
	}
	c.reports = append(c.reports, r)
}

// Take waits for a report about a domain, and returns the oldest that was not taken yet. The error is that of ctx, or
// tells what was heard and not understood.
func (c *Collector) Take(ctx context.Context, domain string) (Report, error) {
	for {
		r, others, err := c.take(domain)
		if err != nil {
			return Report{}, err
		}
		if r != nil {
			return *r, nil
		}
		if err := pause(ctx); err != nil {
			return Report{}, fmt.Errorf("no report about %s, and %d others: %w", domain, others, err)
		}
	}
}

// take returns nil without an error if there is none yet.
func (c *Collector) take(domain string) (r *Report, others int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, 0, c.err
	}
	i := slices.IndexFunc(c.reports, func(r Report) bool { return r.Domain == domain })
	if i < 0 {
		return nil, len(c.reports), nil
	}
	found := c.reports[i]
	c.reports = slices.Delete(c.reports, i, i+1)
	return &found, len(c.reports), nil
}

// Rest takes all reports that were sent before and not taken yet, and so finds that there is none. Postfix sends a
// report before it writes the outcome of the delivery to mail.log.
func (c *Collector) Rest() ([]Report, error) {
	// A datagram of our own comes after those that were sent before.
	us, err := net.Dial("unixgram", c.conn.LocalAddr().String())
	if err != nil {
		return nil, err
	}
	defer us.Close()
	if _, err := us.Write(nil); err != nil {
		return nil, err
	}
	<-c.empty
	c.mu.Lock()
	defer c.mu.Unlock()
	rest := c.reports
	c.reports = nil
	return rest, c.err
}

// Close stops to listen, and returns what could not be understood of all that was heard.
func (c *Collector) Close() error {
	err := c.conn.Close()
	c.reading.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(err, c.err)
}
