package postconf

import "strings"

// A Table is one of the tables that a setting such as smtp_tls_policy_maps
// lists.
type Table struct {
	// Text is as it stands there: "proxy:socketmap:unix:map.sock:postfix".
	Text string
	// Address is where a socketmap is, in the form for socketmap.Dial; the path
	// of a UNIX-domain socket may be relative to the queue directory. It is empty
	// for other tables.
	Address string
	// Map is the name that is asked for there.
	Map string
	// Proxied says that it is asked by way of proxymap(8).
	Proxied bool
}

// Tables reads a list of tables as Postfix does: separated by commas and blanks,
// unless they are within braces (util/mystrtok.c).
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
	if start >= 0 { // an open brace
		all = append(all, parseTable(list[start:]))
	}
	return all
}

// parseTable takes a socketmap apart (proto/socketmap_table).
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
