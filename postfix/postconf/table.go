package postconf

import "strings"

// A Table is a lookup table in the value of a parameter such as
// smtp_tls_policy_maps.
type Table struct {
	// Text is the table as written: "proxy:socketmap:unix:map.sock:postfix".
	Text string
	// Address is that of a socketmap, in the form for socketmap.Dial; empty for
	// other tables. The path of a UNIX-domain socket may be relative to the queue
	// directory.
	Address string
	// Map is the name of the socketmap.
	Map string
	// Proxied reports whether Postfix uses it through proxymap(8).
	Proxied bool
}

// Tables splits a list of tables as Postfix does: at commas and white space outside
// braces (util/mystrtok.c).
func Tables(list string) []Table {
	var all []Table
	depth, start := 0, -1
	for i, r := range list + " " {
		switch {
		case strings.ContainsRune(", \t\r\n", r) && depth == 0:
			if start >= 0 {
				all = append(all, parseTable(list[start:i]))
			}
			start = -1
			continue
		case r == '{':
			depth++
		case r == '}' && depth > 0:
			depth--
		}
		if start < 0 {
			start = i
		}
	}
	if start >= 0 { // a brace was not closed
		all = append(all, parseTable(list[start:]))
	}
	return all
}

// parseTable parses one table; only socketmaps have an Address
// (proto/socketmap_table).
func parseTable(text string) Table {
	t := Table{Text: text}
	rest, proxied := strings.CutPrefix(text, "proxy:")
	t.Proxied = proxied
	rest, ok := strings.CutPrefix(rest, "socketmap:")
	colon := strings.LastIndexByte(rest, ':')
	if !ok || colon < 0 {
		return t
	}
	address, name := rest[:colon], rest[colon+1:]
	if where, ok := strings.CutPrefix(address, "inet:"); ok {
		t.Address, t.Map = where, name
	} else if strings.HasPrefix(address, "unix:") {
		t.Address, t.Map = address, name
	}
	return t
}

// String returns Text.
func (t Table) String() string { return t.Text }
