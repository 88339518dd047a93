package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"stsmap/resolver"
	"stsmap/sts"
)

// maxServers is how many name servers of a zone are asked.
const maxServers = 13

// A nameServer is one authoritative server, and what it says of the record.
type nameServer struct {
	name   string
	record sts.Record
	why    error // that there is no record, or that it did not answer
}

// gatherNameServers asks each name server of the zone that the record is in.
func (l *look) gatherNameServers(ctx context.Context) {
	var names []string
	for zone := l.record.Name; strings.Contains(zone, "."); _, zone, _ = strings.Cut(zone, ".") {
		answer, err := l.c.Resolver.NS(ctx, zone)
		if err != nil {
			l.zoneErr = err
			return
		}
		if names = answer.Records; len(names) > 0 {
			break
		}
	}
	if len(names) == 0 {
		l.zoneErr = errors.New("no name servers were found")
		return
	}
	slices.Sort(names)
	names = names[:min(len(names), maxServers)]
	l.servers = make([]nameServer, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { l.servers[i] = l.askServer(ctx, name) })
	}
	wg.Wait()
}

// askServer asks one name server for the record, at its first address.
func (l *look) askServer(ctx context.Context, name string) nameServer {
	s := nameServer{name: name}
	addrs, err := l.asked.Addr(ctx, name)
	if err == nil && len(addrs.Records) == 0 {
		err = errors.New("it has no address")
	}
	if err != nil {
		s.why = err
		return s
	}
	r, err := resolver.New(resolver.Config{
		Servers: []string{net.JoinHostPort(addrs.Records[0].String(), "53")}, Attempts: 1, Dial: l.c.Dial,
	})
	if err != nil {
		s.why = err
		return s
	}
	answer, err := r.TXT(ctx, l.record.Name)
	if err == nil {
		s.record, err = sts.ParseRecords(answer.Records)
	}
	s.why = err
	return s
}

// judgeNameServers is about whether they agree.
func (l *look) judgeNameServers() {
	const id = "STS-D07"
	switch {
	case !l.c.NameServers:
		l.skip("name servers are asked only with --ns", id)
		return
	case l.zoneErr != nil:
		l.skip(l.zoneErr.Error(), id)
		return
	}
	var odd []string
	for _, s := range l.servers {
		switch {
		case s.why != nil && l.record.ID != "":
			odd = append(odd, fmt.Sprintf("%s: %v", s.name, s.why))
		case s.record.ID != l.record.ID:
			odd = append(odd, fmt.Sprintf("%s answers id %s", s.name, s.record.ID))
		}
	}
	if len(odd) == 0 {
		l.ok(id, "%s: they agree about the record", plural(len(l.servers), "name server was asked", "name servers were asked"))
		return
	}
	l.add(Finding{
		ID: id, Severity: Warn, Who: Them, Seen: "the resolver here has id " + l.record.ID + ", but " + several(odd),
		Why: "Which policy senders find is a matter of luck.", Fix: "Bring the zone up to date on every name server.",
	})
}
