package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"golang.org/x/net/idna"
)

// A testPolicy is the policy that a domain publishes, with the properties that it was generated to have.
type testPolicy struct {
	n      int
	kind   string // how it was made, for people
	domain string // in A-labels, lower case
	hop    string // the domain as it stands in addresses
	valid  bool   // the policy is, by RFC 8461, Section 3.2
	mode   string
	mx     []string // the values of all lines "mx:", as they stand there
	lines  []string // of the policy, without line ends and the white space before them
	body   string   // of the answer of the policy host
	hosts  []string // as many as two names of MX hosts that the policy allows
}

// A generator makes one test policy.
type generator struct {
	*rand.Rand
	testPolicy
}

// generate makes the n-th test policy of a seed. The first ones are of each kind that is to be in every run, above all
// those that reach one of the steps by which a reply is kept short; the others are left to chance.
func generate(seed uint64, n int) testPolicy {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, uint64(n))), testPolicy: testPolicy{n: n, valid: true}}
	g.name()
	kinds := []string{"words", "strings", "patterns", "more-patterns", "giant", "duplicates", "long", "edge", "invalid", "none"}
	testing := []string{"strings", "patterns", "most-patterns", "more-patterns", "words"}
	switch {
	case n < len(kinds):
		g.kind, g.mode = kinds[n], "enforce"
	case n < len(kinds)+len(testing):
		g.kind, g.mode = testing[n-len(kinds)], "testing"
	default:
		g.kind = pick(g, append(slices.Repeat([]string{"small"}, 80), kinds...))
		g.mode = pick(g, []string{"enforce", "enforce", "testing"})
	}
	if g.kind == "none" {
		g.mode = "none"
	}
	g.policy()
	return g.testPolicy
}

func pick[T any](g *generator, from []T) T { return from[g.IntN(len(from))] }

// often reports true once in n times.
func (g *generator) often(n int) bool { return g.IntN(n) == 0 }

// name chooses the domain, below d.example in every case, where no pattern and no MX host is.
func (g *generator) name() {
	g.hop = fmt.Sprintf("d%d.d.example", g.n)
	switch g.IntN(12) {
	case 0:
		g.hop = pick(g, []string{"_under", "a_b", "_", "xn--bcher-kva", "xn--80ak6aa92e", "a--b", "4711", "hostname"}) + "." + g.hop
	case 1: // as long as still has a report: "_smtp._tls." goes before it
		for room := 242 - len(g.hop) - 1; room > 0; room = 242 - len(g.hop) - 1 {
			g.hop = g.label(min(room, 63)) + "." + g.hop
		}
	case 2:
		g.hop = g.shout(g.hop)
	case 3:
		g.hop = pick(g, []string{"bücher", "faß", "例え", "ελλάδα"}) + "." + g.hop
	}
	ascii, err := idna.Lookup.ToASCII(g.hop)
	if !strings.ContainsFunc(g.hop, func(r rune) bool { return r > '~' }) {
		ascii, err = g.hop, nil // the profile refuses names that Postfix looks up
	}
	if err != nil {
		panic(err) // the names above are wrong
	}
	g.domain = strings.ToLower(ascii)
}

// label makes a label of n letters, digits and inner hyphens.
func (g *generator) label(n int) string {
	const within = "abcdefghijklmnopqrstuvwxyz0123456789-"
	b := make([]byte, n)
	for i := range b {
		b[i] = within[g.IntN(len(within))]
		if i == 0 || i == n-1 {
			b[i] = within[g.IntN(26)]
		}
	}
	return string(b)
}

// shout makes some letters upper case.
func (g *generator) shout(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'a' <= c && c <= 'z' && g.often(3) {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

// policy makes the policy, line by line, and then the body.
func (g *generator) policy() {
	// Not 0: such a policy is downloaded again for the next lookup.
	age := pick(g, []string{"86400", "604800", "31557600", "9999999999", "0000086400"})
	fields := []string{g.field("version", "STSv1"), g.field("mode", g.mode), g.field("max_age", age)}
	fields = append(fields, g.extensions()...)
	for range g.exchangers() {
		fields = append(fields, "") // is filled when the order is known
	}
	g.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	next := 0
	for i, l := range fields {
		if l == "" {
			fields[i] = g.field("mx", g.mx[next])
			next++
		}
	}
	if g.often(6) { // all but the first shall be ignored, even malformed ones
		fields = append(fields, pick(g, []string{
			"mode: none", "mode: enforce", "mode: testing", "mode: bogus {", "version: STSv2", "max_age: x", "max_age: 1",
		}))
	}
	if g.kind == "edge" {
		fields = append(fields, g.padding(fields))
	}
	if g.kind == "invalid" {
		g.spoil(fields)
		return
	}
	g.lines = fields
	g.write(fields)
}

// field writes a line, without what may stand at its end.
func (g *generator) field(name, value string) string {
	delim := ": "
	if g.kind == "small" && g.often(5) {
		delim = ":" + pick(g, []string{"", "  ", "\t", " \t ", strings.Repeat(" ", 40)})
	}
	return name + delim + value
}

// write puts the lines into the body, with everything that the grammar allows between them.
func (g *generator) write(lines []string) {
	ends := pick(g, [][]string{{"\r\n"}, {"\r\n"}, {"\n"}, {"\r\n", "\n", " \r\n", "\t\n", "  \t \r\n"}})
	var body strings.Builder
	for i, l := range lines {
		body.WriteString(l)
		if i < len(lines)-1 || !g.often(8) {
			body.WriteString(pick(g, ends))
		}
	}
	if g.body = body.String(); g.often(8) && strings.HasSuffix(g.body, "\n") {
		g.body += pick(g, []string{"\n", "\r\n", "\r\n\n"}) // departs from the grammar, and is accepted
	}
}

// exchangers makes g.mx, the values of the mx lines.
func (g *generator) exchangers() []string {
	var names []string
	deliverable := func(n int) {
		for range n {
			pattern, host := g.pattern()
			names = append(names, pattern)
			if !slices.Contains(g.hosts, host) {
				g.hosts = append(g.hosts, host)
			}
		}
	}
	few := func(n int) {
		for range n {
			names = append(names, pick(g, stranger(g)))
		}
	}
	short := func(bytes int) { // as many different ones as make a body of that size
		for i := 0; bytes > 0; i++ {
			name := fmt.Sprintf("%s.%c%c", base36(i), 'a'+g.IntN(26), 'a'+g.IntN(26))
			bytes -= len("mx: \r\n") + len(name)
			names = append(names, name)
		}
	}
	switch g.kind {
	case "words":
		for range 1 + g.IntN(4) {
			names = append(names, pick(g, []string{
				"hostname", "nexthop", "dot-nexthop", "HostName", "localhost", "mx", "com", "192.0.2.1", "127.0.0.1",
			}))
		}
		g.hosts = nil
	case "strings", "long", "edge":
		deliverable(2)
		few(2)
	case "patterns":
		deliverable(2)
		short(22000 + g.IntN(12000))
	case "most-patterns": // as many as can be reported, but not enforced with attributes, which take more room
		deliverable(2)
		short(39000 + g.IntN(5000))
	case "more-patterns":
		deliverable(2)
		short(50000 + g.IntN(12000))
	case "giant": // more than RFC 8461 suggests to accept; the daemon is configured to accept it
		deliverable(2)
		short(160000)
	case "duplicates":
		deliverable(2)
		for range 1 + g.IntN(1500) {
			names = append(names, g.shout(names[g.IntN(2)]))
		}
	case "none":
		few(g.IntN(3))
		deliverable(g.IntN(2))
	default:
		deliverable(1 + g.IntN(3))
		few(g.IntN(4))
		if g.often(4) {
			names = append(names, g.shout(names[0]))
		}
	}
	g.Shuffle(len(g.hosts), func(i, j int) { g.hosts[i], g.hosts[j] = g.hosts[j], g.hosts[i] })
	g.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	g.mx = names
	return names
}

// base36 writes a number as a label that begins with a letter.
func base36(i int) string {
	const digits = "abcdefghijklmnopqrstuvwxyz0123456789"
	s := string(digits[i%26])
	for i /= 26; i > 0; i /= 36 {
		s += string(digits[i%36])
	}
	return s
}

// pattern makes a pattern, as written, and an MX host that it allows. Both have the number of the test policy in them, so
// that no two of them share a host.
func (g *generator) pattern() (pattern, host string) {
	tld := pick(g, []string{"net", "org", "test", "invalid", "xn--p1ai", "a", "co.uk"})
	base := fmt.Sprintf("%s-%d.%s", g.label(2), g.n, tld)
	prefix := pick(g, []string{"", "mx.", "MX1.", "1.2.", "xn--bcher-kva.", "hostname.", "nexthop.", "a--b.", "192.0.2.1."})
	switch g.IntN(8) {
	case 0:
		prefix = g.label(63) + "." + g.label(63) + "."
	case 1: // as long as a name can be in DNS
		for room := 253 - len(prefix+base) - 1; room > 0; room = 253 - len(prefix+base) - 1 {
			prefix = g.label(min(room, 63)) + "." + prefix
		}
		return g.shout(prefix + base), strings.ToLower(prefix + base)
	case 2: // as weak as it gets; the owner's business (RFC 8461, Section 10.4)
		return g.shout("*." + tld), base
	}
	if g.often(2) {
		return g.shout("*." + prefix + base), strings.ToLower(g.label(1+g.IntN(20)) + "." + prefix + base)
	}
	return g.shout(prefix + base), strings.ToLower(prefix + base)
}

// stranger returns patterns that are valid and that no MX host of ours can have.
func stranger(g *generator) []string {
	long := g.label(63) + "." + g.label(63) + "." + g.label(63) + "." + g.label(58) + ".net" // 255
	return []string{
		"hostname", "nexthop", "dot-nexthop", "NEXTHOP", "Dot-NextHop", "localhost", "com", g.label(1), g.label(63), "xn--p1ai",
		"12345", "192.0.2.1", "0.0.0.0", "255.255.255.255", "1.2.3", "999.1.1.1", "010.010.010.010", "*.2.0.192", "*.1", "a.1",
		"*.hostname", "*.nexthop", "*.dot-nexthop", "*.localhost", "*." + g.label(63),
		long, g.shout(long), "*." + long,
		"policy-failure.net", "mx-host-pattern.net", "secure.match", "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s.t.u.v.w.x.y.z",
	}
}

// extensions makes lines that are ignored, and reported.
func (g *generator) extensions() []string {
	var lines []string
	size := 0
	add := func(line string) {
		lines = append(lines, line)
		size += len(line)
	}
	switch g.kind {
	case "strings", "edge": // short ones, which the reply makes several times as long
		total := 25000 + g.IntN(30000)
		if g.kind == "edge" {
			total = 16000
		}
		for size+2*len(lines) < total {
			add("e" + g.label(1+g.IntN(2)) + ":" + g.text(1)) // never "mx"
		}
	case "long": // all of these fit
		for size < 60000 {
			add(g.field("x", g.text(100+g.IntN(300))))
		}
		for size > 60000 {
			size -= len(lines[len(lines)-1])
			lines = lines[:len(lines)-1]
		}
	default:
		for range g.IntN(6) {
			add(g.field(g.extension(), g.text(1+g.IntN(12))))
		}
	}
	return lines
}

// extension makes the name of a field that has no meaning.
func (g *generator) extension() string {
	return pick(g, []string{
		"x", "0", "policy_failure", "policy_ttl", "policy_string", "policy_type", "policy_domain", "mx_host_pattern", "match",
		"servername", "tafile", "ciphers", "connection_reuse", "enable_rpk", "Mode", "MX", "VERSION", "mx.", "mode-", "x_padding",
		g.label(32), "a" + strings.Repeat("_-.", 10),
	})
}

// text makes a value out of so many pieces.
func (g *generator) text(pieces int) string {
	var out strings.Builder
	for range pieces {
		switch g.IntN(10) {
		case 0:
			out.WriteByte(byte('!' + g.IntN('~'-'!'+1)))
		case 1:
			out.WriteString(g.runes())
		case 2:
			for c := byte(' '); c <= '~'; c++ {
				out.WriteByte(c)
			}
		default:
			out.WriteString(pick(g, snippets()))
		}
		if g.often(3) {
			out.WriteByte(' ')
		}
	}
	// There must be something, and it may not begin or end with a space.
	if text := strings.Trim(out.String(), " "); text != "" {
		return text
	}
	return "}"
}

// snippets are texts with a meaning to a parser between policy host and smtp(8).
func snippets() []string {
	return []string{
		"{", "}", "{}", "}{", "{{", "}}", "{{}}", "{ }", "{a}{b}", "} {", "{ {", "} }", "{ policy_failure = sts-policy-invalid }",
		"} policy_failure=validation-failure {", "} { policy_string = x", "} match=hostname {", "policy_failure=sts-webpki-invalid",
		"policy_ttl=1", "tafile=/etc/passwd", "match=hostname", "match=nexthop:dot-nexthop", "servername=x.example",
		"connection_reuse=yes", "enable_rpk=yes", "policy_type=no-policy-found", "policy_domain=evil.example", "mx_host_pattern=*.example",
		"= ", "=", "==", " = ",
		",", ", ", ":", ";", `"`, `\`, `\"`, "'", "%s%n", "#", "<>", "[]", "()", "$(reboot)", "`", "~",
		"12:OK secure x,", "0:,", "2:OK,4:TEMP,",
		"OK secure match=nexthop", "NOTFOUND ", "TEMP x", "may", "none", "a  b", "v=STSv1; id=x;", "\\r\\n", "\\0",
	}
}

// runes makes text beyond ASCII: sequences of two to four bytes, and such as programs take for something else.
func (g *generator) runes() string {
	switch g.IntN(6) {
	case 0:
		return pick(g, []string{"\u0080", "\u0085", "\u009b31m", "\u009f", "\u00a0", "\u00ad"}) // C1 and more
	case 1:
		return pick(g, []string{"\u2028", "\u2029", "\u202e", "\u2066", "\u200b", "\ufeff", "\u200f", "\u0300", "\ufffd"})
	case 2:
		// The ends of ranges.
		return pick(g, []string{"\u07ff", "\u0800", "\ud7ff", "\ue000", "\ufffe", "\uffff", "\U00010000", "\U0010ffff"})
	case 3:
		return string(rune(0x80 + g.IntN(0x780)))
	case 4:
		return pick(g, []string{"café", "中文", "שלום", "\uff5b\uff5d", "\uff0c", "\uff1d"}) // wide braces, comma and equals sign
	}
	return string(rune(0x10000 + g.IntN(0x100000)))
}

// padding makes a line that brings the whole reply to about what is sent at most.
func (g *generator) padding(lines []string) string {
	s := g.testPolicy
	s.lines = append(lines, "y: ")
	f := s.whole()
	if g.mode == "testing" {
		f.level, f.match = "may", nil
	}
	return "y: " + strings.Repeat("z", max(1, maxReply-f.size()+g.IntN(60)-30))
}

// spoil makes an invalid policy out of the lines of a valid one.
func (g *generator) spoil(lines []string) {
	g.valid = false
	if g.often(4) {
		g.replace(lines)
		return
	}
	bad := pick(g, []string{
		"", " x: y", "\tmx: a.net", "x:", "x: ", "novalue", "_x: y", "-x: y", ".x: y", "x y: z", "x : y", ": x", "# comment", "{ x: y }",
		"x: a\tb", "x: a\x7fb", "x: a\x00b", "x: a\rb", "x: a\vb", "x: a\fb", "x: a\x1bb", strings.Repeat("n", 33) + ": v",
		"x: caf\xe9", "x: \xc0\xaf", "x: \xed\xa0\x80", "x: \xf4\x90\x80\x80", // not UTF-8
		"mx:", "mx: a_b.net", "mx: a.net.", "mx: *", "mx: *.", "mx: *a.net", "mx: a.*.net", "mx: *.*.net", "mx: -a.net", "mx: a-.net",
		"mx: a..net", "mx: .a.net", "mx: a.net, b.net", "mx: a.net b.net", "mx: [192.0.2.1]", "mx: 2001:db8::1", "mx: bücher.net",
		"mx: a.net:25", "mx: {a.net}", "mx: a.net}{", "mx: hostname:nexthop", "mx: a.net servername=x", "mx: a=b.net",
		"mx: " + g.label(64) + ".net",
		"mx: " + strings.Repeat("a.", 126) + "net4", "mx: mx.net\u2028mode: none", "é: x", "\ufeffx: y",
	})
	at := 1 + g.IntN(len(lines)-1) // an empty line at the end would do no harm
	g.kind += " " + fmt.Sprintf("%q", bad)
	g.lines = slices.Insert(lines, at, bad)
	g.write(g.lines)
}

// replace spoils a policy by changing what it has.
func (g *generator) replace(lines []string) {
	change := pick(g, [][2]string{
		{"version", ""}, {"mode", ""}, {"max_age", ""}, {"mx", ""},
		{"version", "STSv2"}, {"version", "stsv1"}, {"mode", "Enforce"}, {"mode", "report"}, {"mode", "enforce {}"},
		{"max_age", "-1"}, {"max_age", "+1"}, {"max_age", "1e6"}, {"max_age", "12345678901"}, {"max_age", "1_000"},
	})
	g.kind += " " + fmt.Sprintf("%q", change)
	var kept []string
	for _, l := range lines {
		name, _, _ := strings.Cut(l, ":")
		switch {
		case name != change[0]:
			kept = append(kept, l)
		case change[1] != "":
			kept = append(kept, name+": "+change[1])
		}
	}
	g.lines = kept
	g.write(kept)
}
