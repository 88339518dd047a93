// Package dane finds out which MX hosts of a next-hop can be authenticated
// with DANE (RFC 7672), as far as DNS tells.
//
// It does not connect to any host, does not validate signatures, which is the
// business of the recursive resolver, remembers nothing, and does not decide
// what the findings mean for mail, which is that of package policy.
package dane

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// smtp is the port of a next-hop that does not say one.
const smtp = 25

// A NextHop is where mail goes: what DANE is about. MTA-STS knows only its
// domain.
type NextHop struct {
	// Domain is a name in lower-case A-label form, without a trailing dot.
	Domain string
	// Port is part of the name of TLSA records (RFC 7672, Section 2.2.3);
	// zero means 25.
	Port uint16
	// NoMX says that Domain is a host, and not to be looked up as a mail
	// domain. Postfix writes that with brackets.
	NoMX bool
}

// String returns n as Postfix writes it, always the same for the same:
// "example.com", "example.com:587", "[relay.example]", "[relay.example]:587".
func (n NextHop) String() string {
	if n.port() == smtp && !n.NoMX {
		return n.Domain
	}
	var b strings.Builder
	if n.NoMX {
		b.WriteString("[" + n.Domain + "]")
	} else {
		b.WriteString(n.Domain)
	}
	if n.port() != smtp {
		b.WriteString(":" + strconv.Itoa(int(n.port())))
	}
	return b.String()
}

func (n NextHop) port() uint16 {
	if n.Port == 0 {
		return smtp
	}
	return n.Port
}

// A State is what DNS says about the TLSA records of a host.
type State uint8

// The states of a host: the four outcomes of RFC 7672, Section 2.2, and one for
// those that mail never goes to.
const (
	// None means that there are no TLSA records, or none that are secure. So is
	// a host that was not looked at, beyond the limit of Result.Hosts.
	None State = iota
	// Usable means that there are secure TLSA records to authenticate the
	// host with.
	Usable
	// Unusable means that there are secure TLSA records, but none that says
	// how: TLS is demanded, authentication is not possible.
	Unusable
	// Failed means that it could not be found out; mail must not be delivered
	// to the host (RFC 7672, Section 2.2.1).
	Failed
	// Absent means that there is no such host: it has no address, or is an
	// address in lieu of a name, to which DANE does not apply. It does not
	// count for or against the others.
	Absent
)

// String returns the word for s that logs and metrics use: "none", "usable",
// "unusable", "failed" or "absent".
func (s State) String() string {
	words := [...]string{"none", "usable", "unusable", "failed", "absent"}
	if int(s) >= len(words) {
		return fmt.Sprintf("State(%d)", uint8(s))
	}
	return words[s]
}

// A Host is one MX host of a next-hop, or the next-hop itself.
type Host struct {
	// Name is in lower case and without a trailing dot.
	Name string
	// State is what counts.
	State State
	// Base is the TLSA base domain whose records count (RFC 7672, Section
	// 2.2.3): Name, or what its CNAMEs lead to. It is empty if no records do.
	Base string
	// Err tells why a host is Failed, as a *resolver.Error, or why the records
	// of one that is Unusable do not count. Otherwise it is nil.
	Err error
}

// A Result is what DNS says about a next-hop.
type Result struct {
	// MXSecure says that it is authentic which hosts mail goes to: because the
	// MX records are, or their absence (RFC 5321, Section 5.1), or because the
	// next-hop is a host.
	MXSecure bool
	// NoMail says that no mail can be delivered: the domain says so (RFC 7505,
	// Section 3), or does not exist. MXSecure says whether that is authentic.
	NoMail bool
	// Hosts has each host once, in order of preference. It is empty if there
	// is NoMail. Hosts of the same preference are in the order of their names,
	// so that the same domain gives the same Result.
	//
	// Not more than 32 are looked at. If there are more, the next one stands for
	// all that follow: it is None, as they may be, so that the domain does not
	// pass for one where every host can be authenticated.
	Hosts []Host
	// TTL is the least of everything that was learned; what failed has none. It
	// is zero if nothing was.
	TTL time.Duration
}

// Count is how many hosts are in the state s.
func (r Result) Count(s State) (n int) {
	for _, h := range r.Hosts {
		if h.State == s {
			n++
		}
	}
	return n
}
