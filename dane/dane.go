// Package dane finds out which MX hosts of a next-hop can be authenticated
// with DANE (RFC 7672), as far as DNS shows that.
//
// It does not connect to MX hosts and does not validate signatures: that is the
// task of the recursive resolver. It keeps nothing between calls, and does not
// decide what a result means for mail: package policy does.
package dane

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// smtpPort is the port of a next-hop that has none.
const smtpPort = 25

// A NextHop is where Postfix sends mail to. DANE depends on all of it, MTA-STS
// only on its domain.
type NextHop struct {
	// Domain is a name in lower-case A-label form, without a trailing dot.
	Domain string
	// Port is part of the name of TLSA records (RFC 7672, Section 2.2.3);
	// zero means 25.
	Port uint16
	// NoMX means that Domain is a host, for which MX records are not looked up.
	// Postfix writes it in brackets.
	NoMX bool
}

// String returns n as Postfix writes it, in canonical form: "example.com",
// "example.com:587", "[relay.example]", "[relay.example]:587".
func (n NextHop) String() string {
	if n.port() == smtpPort && !n.NoMX {
		return n.Domain
	}
	var b strings.Builder
	if n.NoMX {
		b.WriteString("[" + n.Domain + "]")
	} else {
		b.WriteString(n.Domain)
	}
	if n.port() != smtpPort {
		b.WriteString(":" + strconv.Itoa(int(n.port())))
	}
	return b.String()
}

func (n NextHop) port() uint16 {
	if n.Port == 0 {
		return smtpPort
	}
	return n.Port
}

// A State is what DNS says about the TLSA records of a host.
type State uint8

// The states of a host: the four outcomes of RFC 7672, Section 2.2, and two for
// hosts that Postfix cannot connect to.
const (
	// None means that the host has no secure TLSA records. A host beyond the
	// limit of Result.Hosts is None, too, without a lookup.
	None State = iota
	// Usable means that there are secure TLSA records to authenticate the host
	// with.
	Usable
	// Unusable means that there are secure TLSA records, but none that can be
	// used: TLS is required, authentication is not possible.
	Unusable
	// Failed means that a lookup failed; mail must not be delivered to the host
	// (RFC 7672, Section 2.2.1).
	Failed
	// NoAddress means that the host has no address records, or that an address
	// stands in place of its name, to which DANE does not apply. The host is
	// ignored.
	NoAddress
	// Unresolved means that the lookup of the host's addresses ended with
	// SERVFAIL or without a response, while another host has an address. Postfix
	// cannot connect to the host for the same reason, and uses the others. The
	// host is ignored, unless it is known to have had usable TLSA records: see
	// Result.FailUnresolved.
	Unresolved
)

// String returns the word for s in logs and metrics: "none", "usable",
// "unusable", "failed", "absent" or "unresolved".
func (s State) String() string {
	words := [...]string{"none", "usable", "unusable", "failed", "absent", "unresolved"}
	if int(s) >= len(words) {
		return fmt.Sprintf("State(%d)", uint8(s))
	}
	return words[s]
}

// A Host is one MX host of a next-hop, or the next-hop itself.
type Host struct {
	// Name is in lower case and without a trailing dot.
	Name string
	// State is what DNS says about the host.
	State State
	// Base is the TLSA base domain whose records count (RFC 7672, Section
	// 2.2.3): Name, or the end of its CNAME chain. It is empty if the host has no
	// records that count.
	Base string
	// Err is why a host is Failed or Unresolved, as a *resolver.Error, or why the
	// records of an Unusable host cannot be used. Otherwise it is nil.
	Err error
}

// A Result is what DNS says about a next-hop.
type Result struct {
	// MXSecure reports whether the list of hosts is authentic: because the MX
	// records are secure, or their absence (RFC 5321, Section 5.1), or because
	// the next-hop is a host.
	MXSecure bool
	// NoMail reports that mail cannot be delivered: the domain has a null MX
	// record (RFC 7505, Section 3), or does not exist. MXSecure says whether that
	// is authentic.
	NoMail bool
	// Hosts has each host once, in order of preference, and by name where that is
	// equal, so that the same records give the same Result. It is empty if NoMail
	// is true.
	//
	// At most 32 are looked up. If there are more, one more follows that stands
	// for the rest, as None: the domain does not count as one where every host can
	// be authenticated.
	Hosts []Host
	// TTL is the least TTL of all answers. Failures have none. It is zero if there
	// was no answer.
	TTL time.Duration
}

// Count returns how many hosts are in the state s.
func (r Result) Count(s State) (n int) {
	for _, h := range r.Hosts {
		if h.State == s {
			n++
		}
	}
	return n
}

// FailUnresolved returns r with those Unresolved hosts as Failed that are among
// names: the hosts that were last known to be Usable. They may have to be
// authenticated as soon as they can be reached (RFC 7672, Section 2.2). r is not
// changed.
func (r Result) FailUnresolved(names []string) Result {
	r.Hosts = slices.Clone(r.Hosts)
	failUnresolved(r.Hosts, func(h Host) bool { return slices.Contains(names, h.Name) })
	return r
}

// failUnresolved changes those Unresolved hosts to Failed that cond is true for.
func failUnresolved(hosts []Host, cond func(Host) bool) {
	for i := range hosts {
		if hosts[i].State == Unresolved && cond(hosts[i]) {
			hosts[i].State = Failed
		}
	}
}
