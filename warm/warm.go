// Package warm lists the domains whose policies are to be cached before mail is
// sent to them. First contact with a domain may be without protection (RFC
// 8461, Section 10.2), and the domains of last week's mail are likely to get
// mail again.
//
// It reads the domains from a list or from Postfix's log, and fetches them at a
// low rate. It does not know how a domain is fetched.
package warm

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
)

// AtOnce is how many domains are fetched at the same time: warming is never
// urgent, and the resolver has other work.
const AtOnce = 8

const (
	// maxLine bounds what is read of a line, in bytes; the rest is ignored.
	maxLine = 64 << 10
	// maxDomains bounds a list.
	maxDomains = 5_000_000
	// maxBad bounds how many bad lines are reported.
	maxBad = 20
)

// A List is what Read has found.
type List struct {
	// Domains are the policy domains, each once. Those of a log are in the
	// order of their messages, most first; those of a list as they stand.
	Domains []string
	// Messages is how many messages to those domains a log has; 0 for a list.
	Messages int
	// Bad are the first lines that name no policy domain, Omitted how many
	// more there are. Lines of a log are never bad.
	Bad     []BadLine
	Omitted int
}

// A BadLine is one that names no policy domain.
type BadLine struct {
	Line int    // from 1
	Text string // its beginning
}

// Read reads domains from r until its end. A line of smtp(8) in Postfix's log
// counts as a message to the domain in to=<…>, and other lines of that log are
// passed over. In all other lines the first word is a key that Postfix would
// send, such as a domain, and what follows is passed over; so are empty lines
// and those that begin with #. domain returns the policy domain of a key, and
// false if it has none.
//
// The error is that of r, or says that there are too many domains; what was
// read before it is returned with it.
func Read(r io.Reader, domain func(key string) (string, bool)) (List, error) {
	rd := reader{domain: domain, count: make(map[string]int)}
	in := bufio.NewReaderSize(r, maxLine)
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		rd.line(n, line)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = in.ReadSlice('\n')
		}
		if len(rd.list.Domains) > maxDomains {
			return rd.list, fmt.Errorf("line %d: more than %d domains", n, maxDomains)
		}
		if errors.Is(err, io.EOF) {
			return rd.sorted(), nil
		}
		if err != nil {
			return rd.sorted(), err
		}
	}
}

// A reader is the state of Read.
type reader struct {
	domain func(key string) (string, bool)
	list   List
	count  map[string]int // messages; the domains seen so far
}

// line takes in one line.
func (rd *reader) line(n int, line []byte) {
	line = bytes.TrimSpace(line)
	if len(line) == 0 || line[0] == '#' {
		return
	}
	if isLog(line) {
		if d, ok := rd.domain(recipientDomain(line)); ok {
			rd.add(d, 1)
			rd.list.Messages++
		}
		return
	}
	key, _, _ := strings.Cut(string(line), " ")
	key, _, _ = strings.Cut(key, "\t")
	d, ok := rd.domain(key)
	switch {
	case ok:
		rd.add(d, 0)
	case len(rd.list.Bad) < maxBad:
		rd.list.Bad = append(rd.list.Bad, BadLine{n, string(line[:min(len(line), 60)])})
	default:
		rd.list.Omitted++
	}
}

func (rd *reader) add(domain string, messages int) {
	if _, ok := rd.count[domain]; !ok {
		rd.list.Domains = append(rd.list.Domains, domain)
	}
	rd.count[domain] += messages
}

// sorted returns the list with the most used domains first.
func (rd *reader) sorted() List {
	slices.SortStableFunc(rd.list.Domains, func(a, b string) int { return cmp.Compare(rd.count[b], rd.count[a]) })
	return rd.list
}

// isLog reports whether a line is one of a log: it has the name of a program
// with its process, such as "postfix/smtp[123]:".
func isLog(line []byte) bool {
	at := bytes.Index(line, []byte("]: "))
	if at < 0 {
		return false
	}
	open := bytes.LastIndexByte(line[:at], '[')
	return open > 0 && open+1 < at && len(bytes.Trim(line[open+1:at], "0123456789")) == 0
}

// recipientDomain returns the domain that smtp(8) says in a line of its log that
// it had a message for (global/log_adhoc.c), or "". What other programs deliver
// does not leave by SMTP with a policy.
func recipientDomain(line []byte) string {
	program, rest, ok := strings.Cut(string(line), "]: ")
	if !ok || !strings.HasSuffix(strings.TrimRight(program, "0123456789"), "/smtp[") {
		return ""
	}
	_, rest, ok = strings.Cut(rest, ": to=<")
	if !ok {
		return ""
	}
	// The local part may be quoted, and have anything in it.
	address, _, _ := strings.Cut(rest, ">, relay=")
	address, _, _ = strings.Cut(address, ">, orig_to=<")
	return address[strings.LastIndexByte(address, '@')+1:]
}

// Each calls retrieve for each domain, at most AtOnce at a time, until all were
// asked for or ctx ends, and then waits for those under way.
func Each(ctx context.Context, domains []string, retrieve func(ctx context.Context, domain string)) {
	next := make(chan string)
	var workers sync.WaitGroup
	for range min(AtOnce, len(domains)) {
		workers.Go(func() {
			for domain := range next {
				retrieve(ctx, domain)
			}
		})
	}
	defer workers.Wait()
	defer close(next)
	for _, domain := range domains {
		select {
		case next <- domain:
		case <-ctx.Done():
			return
		}
	}
}
