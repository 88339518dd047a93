package main

import (
	"fmt"
	"time"

	"stsmap/internal/fakenet"
)

// A network is the role that is all DNS and policy servers there are.
type network struct{ net *fakenet.Net }

// A networkCall starts the network, if Dir is set, or has it count.
type networkCall struct {
	Dir        string // where the certificate is put
	Query      string // how many questions there were for this name; ".": for any
	Type       string // and this type; empty: any
	Handshakes string // how many TLS handshakes there were with this host
}

func (n *network) call(q networkCall, _ <-chan networkCall) (count int, err error) {
	switch {
	case q.Dir != "":
		n.net, err = fakenet.Start(description(), fakenet.Options{DNS: dnsAddr, HTTPSPort: 443, Dir: q.Dir})
		return 0, err
	case q.Query == ".":
		return n.net.Queries("", q.Type), nil
	case q.Query != "":
		return n.net.Queries(q.Query, q.Type), nil
	default:
		return n.net.Handshakes(q.Handshakes), nil
	}
}

const (
	dnsAddr = "127.0.0.1:53"
	// delay is that of each answer of the slow servers.
	delay = 20 * time.Millisecond
)

// The kinds of domains there are, by the first letter of their names. Numbers have six digits, so that replies have
// one size.
const (
	policyNow    = "p%d.now.example"    // a policy, without any delay
	policySlow   = "s%d.slow.example"   // a policy, each answer delayed
	policySilent = "d%d.silent.example" // a record, and a policy host that never answers
	noneNow      = "n%d.none.example"   // no record, without any delay
	noneSlow     = "o%d.late.example"   // no record, the answer delayed
	daneSlow     = "t%d.dane.example"   // like policySlow, with DANE, which takes longer than the policy
	daneHeavy    = "h%d.heavy.example"  // likewise, but the policy takes longer
)

// daneHost is the MX host of the domains with DANE.
const daneHost = "mx.signed.example"

// description is the world of package fakenet.
func description() string {
	const all = "100000..999999"
	text := "-- dns --\n!ad *\n"
	for _, pattern := range []string{daneHost, "_25._tcp." + daneHost} {
		text += fmt.Sprintf("!delay %v %s\n", delay, pattern)
	}
	text += fmt.Sprintf("%s. A 127.0.0.11\n_25._tcp.%s. TLSA 3 1 1 %064d\n", daneHost, daneHost, 0)
	hostileDNS, hostileHTTPS := hostileWorld()
	text += hostileDNS + "-- https --\n" + hostileHTTPS
	text += "mta-sts.silent.example addr=127.0.0.3 stall=accept\n"
	text += hostilePolicy + "-- bulk --\n"
	text += fmt.Sprintf("policy %s %s addr=127.0.9.100 mx=mx%%d.mail.example dnsdelay=%v httpdelay=%v\n", neighbour, all, delay, delay)
	text += fmt.Sprintf("policy %s %s addr=127.0.0.2 mx=mx%%d.mail.example\n", policyNow, all)
	text += fmt.Sprintf("policy %s %s addr=127.0.0.2 mx=mx%%d.mail.example dnsdelay=%v httpdelay=%v\n", policySlow, all, delay, delay)
	text += fmt.Sprintf("policy %s %s addr=127.0.0.3 mx=mx%%d.mail.example\n", policySilent, all)
	text += fmt.Sprintf("none %s %s\n", noneNow, all)
	text += fmt.Sprintf("none %s %s dnsdelay=%v\n", noneSlow, all, delay)
	text += fmt.Sprintf("policy %s %s addr=127.0.0.2 mx=%s dnsdelay=%v httpdelay=%v\n", daneSlow, all, daneHost, delay, delay)
	text += fmt.Sprintf("policy %s %s addr=127.0.0.2 mx=%s dnsdelay=%v httpdelay=%v\n", daneHeavy, all, daneHost, delay, 5*delay)
	return text
}

// networkUp starts the network unless it is there.
func (b *bench) networkUp() (err error) {
	if b.net != nil {
		return nil
	}
	if b.net, err = b.spawn("network"); err != nil {
		return err
	}
	_, err = call[int](b.net, networkCall{Dir: b.dir})
	return err
}

// networkDown takes the network away: questions are then answered by nobody, and connections refused.
func (b *bench) networkDown() {
	if b.net != nil {
		b.net.end()
		b.net = nil
	}
}

// count asks the network.
func (b *bench) count(q networkCall) (int, error) { return call[int](b.net, q) }
