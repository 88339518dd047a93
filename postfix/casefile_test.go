package postfix_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"stsmap/policy"
)

// A vector is one case of testdata/vectors: what happens one after the other
// to one daemon. testdata/vectors/README has the words.
type vector struct {
	name, what string
	at         string // file and line
	deferred   bool   // dns.on_failure = "defer"
	dnsTimeout time.Duration
	timeout    time.Duration
	trust      string // dns.trust_ad
	checkDANE  bool
	dane       policy.DANEConfig
	noDANE     error // why DANE may not be used
	attributes bool  // whether Postfix knows policy attributes; not said by a case
	phases     []*phase
}

// A phase is the fixture with what a case changes about it, and what is
// expected of lookups in it.
type phase struct {
	at     string
	domain string
	txt    [][]string // resource records, each of strings; nil is the fixture's
	noTXT  bool
	noHost bool
	noMX   bool
	dns    []string // further lines of the zone
	https  string   // further words for the policy host
	hosts  []string // further policy hosts
	cached string   // the MX host of the policy in the cache, empty for none
	mode   string   // of the cached policy
	body   string

	mapName     string
	keys        []string
	lookups     int
	parallel    int
	reply, says string
	tlsrpt      string // the reply for a Postfix that knows attributes; empty if it follows from reply

	counts  []count
	event   string
	class   string
	stored  string
	id      string
	life    int // seconds; -1 if nothing is expected
	unknown int // map names reported; -1 likewise
}

// A count is how many queries of one kind a phase expects.
type count struct {
	what string // "gets", "handshakes", "txtqueries" or "queries"
	name string // host or owner name; empty for all names, with "queries"
	want int
}

// fixture is the body P of the vectors.
const fixture = "version: STSv1\r\nmode: enforce\r\nmx: mx1.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n"

func newPhase(at string) *phase {
	return &phase{
		at: at, domain: "example.com", body: fixture, mapName: "postfix",
		lookups: 1, parallel: 1, life: -1, unknown: -1,
	}
}

// readVectors reads one file of cases. An unknown word fails the test.
func readVectors(t testing.TB, path string) []*vector {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []*vector
	var last *vector
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		at := fmt.Sprintf("%s:%d", path, n)
		word, rest, _ := strings.Cut(line, " ")
		rest = strings.TrimSpace(rest)
		if word == "case" {
			name, what, ok := strings.Cut(rest, ": ")
			if !ok || slices.ContainsFunc(all, func(v *vector) bool { return v.name == name }) {
				t.Fatalf("%s: a case needs a name of its own, and says what it shows", at)
			}
			last = &vector{name: name, what: what, at: at, dnsTimeout: 20 * time.Second, timeout: time.Minute}
			last.phases = []*phase{newPhase(at)}
			all = append(all, last)
			continue
		}
		if last == nil {
			t.Fatalf("%s: %q outside of a case", at, word)
		}
		if err := last.read(word, rest, at); err != nil {
			t.Fatalf("%s: %s: %v", at, word, err)
		}
	}
	for _, v := range all {
		for _, p := range v.phases {
			if p.reply == "" || len(p.keys) == 0 && p.domain == "" {
				t.Fatalf("%s: a phase without a reply", p.at)
			}
		}
	}
	return all
}

// read takes one line that belongs to the case as a whole, or else to its
// last phase.
func (v *vector) read(word, rest, at string) (err error) {
	switch word {
	case "then":
		v.phases = append(v.phases, newPhase(at))
	case "defer":
		v.deferred = true
	case "timeout":
		v.timeout, err = time.ParseDuration(rest)
	case "dnstimeout":
		v.dnsTimeout, err = time.ParseDuration(rest)
	case "trust":
		v.trust = rest
	case "dane":
		v.checkDANE = true
		for word := range strings.FieldsSeq(rest) {
			switch word {
			case "all":
				v.dane.All = true
			case "partial":
				v.dane.Partial = true
			case "fallback":
				v.dane.FallBack = true
			case "denied":
				v.noDANE = errors.New("Postfix does not look up DNSSEC")
			default:
				err = fmt.Errorf("unknown word %s", word)
			}
		}
	default:
		err = v.phases[len(v.phases)-1].read(word, rest)
	}
	return err
}

// read takes one line that says what the world is like.
func (p *phase) read(word, rest string) (err error) {
	switch word {
	case "domain":
		p.domain = rest
	case "txt":
		var strs []string
		strs, err = goStrings(rest)
		p.txt = append(p.txt, strs)
	case "notxt":
		p.noTXT = true
	case "nohost":
		p.noHost = true
	case "dns":
		p.dns = append(p.dns, rest)
	case "nomx":
		p.noMX = true
	case "mx":
		p.noMX = true
		err = p.exchangers(strings.Fields(rest))
	case "https":
		p.https = rest
	case "host":
		p.hosts = append(p.hosts, rest)
	case "cached":
		p.mode, p.cached, _ = strings.Cut(rest, " ")
		if p.cached == "" {
			err = fmt.Errorf("wants a mode and an MX host")
		}
	case "body":
		p.body, err = oneString(rest)
	case "pad":
		var n int
		n, err = strconv.Atoi(rest)
		const name, end = "x_padding: ", "\r\n"
		p.body += name + strings.Repeat("x", n-len(p.body)-len(name+end)) + end
	case "add", "drop", "set", "prepend", "lf":
		err = p.edit(word, rest)
	default:
		err = p.readWanted(word, rest)
	}
	return err
}

// exchangers writes the MX hosts that the notation of the vectors stands for.
func (p *phase) exchangers(words []string) error {
	if words[0] == "(ins)" {
		words = words[1:]
	} else {
		p.dns = append(p.dns, "!ad "+p.domain+" MX")
	}
	for i, word := range words {
		label, state, ok := strings.Cut(strings.TrimSuffix(word, "]"), "[")
		host := label + "." + p.domain
		tlsa := "_25._tcp." + host
		p.dns = append(p.dns,
			fmt.Sprintf("%s. MX %d %s.", p.domain, 10*(i+1), host),
			fmt.Sprintf("%s. A 127.0.0.%d", host, 11+i),
			"!ad "+host, "!ad "+tlsa)
		switch {
		case !ok:
			return fmt.Errorf("%s is no host in a state", word)
		case state == "U":
			p.dns = append(p.dns, tlsa+". TLSA 3 1 1 "+strings.Repeat("5a", 32))
		case state == "X":
			p.dns = append(p.dns, tlsa+". TLSA 1 1 1 "+strings.Repeat("5a", 32))
		case state == "F":
			p.dns = append(p.dns, "!servfail "+tlsa)
		case state != "N":
			return fmt.Errorf("%s: no such state", word)
		}
	}
	return nil
}

// edit changes the body.
func (p *phase) edit(word, rest string) error {
	field, value, _ := strings.Cut(rest, " ")
	if word != "drop" && word != "lf" {
		quoted := rest
		if word == "set" {
			quoted = value
		}
		var err error
		if value, err = oneString(quoted); err != nil {
			return err
		}
	}
	var b strings.Builder
	found := word != "drop" && word != "set"
	for line := range strings.Lines(p.body) {
		mine := strings.HasPrefix(line, field+":")
		switch {
		case mine && word == "drop":
			line, found = "", true
		case mine && word == "set":
			line, found = field+": "+value+"\r\n", true
		}
		b.WriteString(line)
	}
	if !found {
		return fmt.Errorf("body has no %s", field)
	}
	switch p.body = b.String(); word {
	case "add":
		p.body += value + "\r\n"
	case "prepend":
		p.body = value + p.body
	case "lf":
		p.body = strings.ReplaceAll(p.body, "\r\n", "\n")
	}
	return nil
}

// readWanted takes one line of the queries to make, or of the expected results.
func (p *phase) readWanted(word, rest string) (err error) {
	switch word {
	case "map":
		p.mapName = rest
	case "key":
		key := rest
		if strings.HasPrefix(rest, `"`) {
			key, err = oneString(rest)
		}
		p.keys = append(p.keys, key)
	case "lookups":
		p.lookups, err = strconv.Atoi(rest)
	case "parallel":
		p.parallel, err = strconv.Atoi(rest)
	case "reply":
		p.reply, err = expand(rest)
	case "tlsrpt":
		p.tlsrpt, err = expand(rest)
	case "says":
		p.says, err = oneString(rest)
	case "gets", "handshakes", "txtqueries", "queries":
		number, name, _ := strings.Cut(rest, " ")
		c := count{what: word, name: name}
		c.want, err = strconv.Atoi(number)
		p.counts = append(p.counts, c)
	case "event":
		p.event = rest
	case "class":
		p.class = rest
	case "stored":
		p.stored = rest
	case "id":
		p.id = rest
	case "lifetime":
		p.life, err = strconv.Atoi(rest)
	case "unknown":
		p.unknown, err = strconv.Atoi(rest)
	default:
		err = fmt.Errorf("unknown word")
	}
	return err
}

// expand puts a reply's short name in full; TEMP is left to the comparison.
func expand(s string) (string, error) {
	switch s {
	case "E":
		return "OK secure match=mx1.example.com:.example.net servername=hostname", nil
	case "Eo":
		return "OK secure match=old.example.com servername=hostname", nil
	case "NF":
		return "NOTFOUND ", nil
	case "TEMP":
		return s, nil
	}
	return oneString(s)
}

// oneString reads one string in Go's syntax.
func oneString(s string) (string, error) {
	all, err := goStrings(s)
	if err != nil || len(all) != 1 {
		return "", fmt.Errorf("%s is not one quoted string", s)
	}
	return all[0], nil
}

// goStrings reads strings in Go's syntax, separated by spaces.
func goStrings(s string) (all []string, err error) {
	for s != "" {
		prefix, err := strconv.QuotedPrefix(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s, err)
		}
		one, err := strconv.Unquote(prefix)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
		s = strings.TrimSpace(s[len(prefix):])
	}
	return all, nil
}
