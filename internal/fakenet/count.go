package fakenet

import (
	"strconv"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// Message is a message that an MX host has accepted.
type Message struct {
	To   []string // of the envelope
	Data []byte   // with CRLF, dots unstuffed
	TLS  bool     // the message came after STARTTLS
	SNI  string   // the name that the client sent in the handshake; empty if it sent none
}

// question is what is counted of a DNS question.
type question struct {
	name  string // canonical: lower case, with the final dot
	qtype uint16
}

// counters count what clients did. They only grow.
type counters struct {
	mu         sync.Mutex // guards what follows
	queries    map[question]int
	requests   map[string]int       // by host name, see hostKey
	handshakes map[string]int       // by host name
	messages   map[string][]Message // by host name
}

func (c *counters) init() {
	c.queries = make(map[question]int)
	c.requests = make(map[string]int)
	c.handshakes = make(map[string]int)
	c.messages = make(map[string][]Message)
}

func (c *counters) query(name string, qtype uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queries[question{name, qtype}]++
}

func (c *counters) request(host string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests[host]++
}

func (c *counters) handshake(host string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handshakes[host]++
}

func (c *counters) message(host string, m Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.messages[host] = append(c.messages[host], m)
}

// Queries counts the DNS questions seen since Start, over UDP and TCP, whether answered or not. An
// empty name stands for all names ("." is the root), an empty qtype for all types; a qtype is a
// mnemonic such as "TXT" or "TYPE65". The case of both is ignored, and so is a final dot.
func (n *Net) Queries(name, qtype string) int {
	want := question{qtype: typeNumber(qtype)}
	if name != "" {
		want.name = dns.CanonicalName(name)
	}
	n.counts.mu.Lock()
	defer n.counts.mu.Unlock()
	if name != "" && qtype != "" {
		return n.counts.queries[want]
	}
	sum := 0
	for q, seen := range n.counts.queries {
		if (name == "" || q.name == want.name) && (qtype == "" || q.qtype == want.qtype) {
			sum += seen
		}
	}
	return sum
}

// Requests counts the HTTP requests whose Host field named host.
func (n *Net) Requests(host string) int {
	n.counts.mu.Lock()
	defer n.counts.mu.Unlock()
	return n.counts.requests[hostKey(host)]
}

// Handshakes counts the TLS handshakes that began with the policy host, also those that failed. A handshake
// without SNI, or with a name that the address does not have, counts for the first host of the address.
func (n *Net) Handshakes(host string) int {
	n.counts.mu.Lock()
	defer n.counts.mu.Unlock()
	return n.counts.handshakes[hostKey(host)]
}

// Messages returns what the MX host has accepted, in the order of arrival. The messages are shared
// and must not be changed.
func (n *Net) Messages(host string) []Message {
	n.counts.mu.Lock()
	defer n.counts.mu.Unlock()
	return append([]Message(nil), n.counts.messages[hostKey(host)]...)
}

// hostKey is the form of a host name in maps: lower case, without the final dot.
func hostKey(host string) string {
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// typeNumber reads a type mnemonic; 0 means that there is none of that name.
func typeNumber(s string) uint16 {
	s = strings.ToUpper(s)
	if t, ok := dns.StringToType[s]; ok {
		return t
	}
	digits, _ := strings.CutPrefix(s, "TYPE") // RFC 3597, Section 5
	t, _ := strconv.ParseUint(digits, 10, 16)
	return uint16(t)
}
