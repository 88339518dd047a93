package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// TestCases plays the files in testdata, which testdata/README explains.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			newPlay(t, ar).run(t)
		})
	}
}

// A play is one case.
type play struct {
	conf    Config
	servers []*testServer
	at      map[string]string // address as configured → of a server
	asks    []string
	want    string
	queries *string
	told    *string // what Observe is to be told
}

func newPlay(t *testing.T, ar *txtar.Archive) *play {
	p := &play{at: make(map[string]string)}
	if len(strings.TrimSpace(string(ar.Comment))) == 0 {
		t.Fatal("the case does not say what it is about")
	}
	for _, f := range ar.Files {
		data := string(f.Data)
		if name, ok := strings.CutPrefix(f.Name, "server "); ok {
			p.servers = append(p.servers, startServer(t, name, data))
			continue
		}
		switch f.Name {
		case "config": // when all servers are known
		case "ask":
			p.asks = strings.Split(strings.TrimSpace(data), "\n")
		case "want":
			p.want = data
		case "queries":
			p.queries = &data
		case "told":
			p.told = &data
		default:
			t.Fatalf("section %q", f.Name)
		}
	}
	p.conf.Timeout = 20 * time.Second // no case but those about silence waits for it
	for _, f := range ar.Files {
		if f.Name == "config" {
			for line := range strings.Lines(string(f.Data)) {
				p.configure(t, strings.Fields(line))
			}
		}
	}
	if p.conf.Servers == nil {
		for _, s := range p.servers {
			p.conf.Servers = append(p.conf.Servers, s.addr)
		}
	}
	return p
}

func (p *play) configure(t *testing.T, f []string) {
	var err error
	switch f[0] {
	case "timeout":
		p.conf.Timeout, err = time.ParseDuration(f[1])
	case "attempts":
		p.conf.Attempts, err = strconv.Atoi(f[1])
	case "trust":
		p.conf.TrustAD = f[1]
	case "dead": // no server is there
		pc, l := listenBoth(t)
		pc.Close()
		l.Close()
		p.servers = append([]*testServer{{name: f[1], addr: pc.LocalAddr().String()}}, p.servers...)
	case "at": // a server is reached at an address that is not its own
		i := slices.IndexFunc(p.servers, func(s *testServer) bool { return s.name == f[1] })
		p.at[f[2]] = p.servers[i].addr
		p.conf.Servers = append(p.conf.Servers, f[2])
		p.conf.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, p.at[addr])
		}
	default:
		t.Fatalf("config %q", f)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (p *play) run(t *testing.T) {
	told := make(chan string, 100)
	p.conf.Observe = func(q QueryResult) { told <- ending(q) }
	r, err := New(p.conf)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, line := range p.asks {
		typ, name, _ := strings.Cut(line, " ")
		got.WriteString(p.named(ask(t, r, typ, name)))
	}
	if diff := cmp.Diff(p.want, got.String()); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}
	var log, said []string
	for _, s := range p.servers {
		log = append(log, s.queries()...)
	}
	for range len(told) {
		said = append(said, <-told)
	}
	inAnyOrder(t, "queries", p.queries, log)
	inAnyOrder(t, "told", p.told, said)
}

// inAnyOrder compares lines with those of a section, if it is there: of two
// questions that are asked at once, either comes first.
func inAnyOrder(t *testing.T, what string, section *string, got []string) {
	t.Helper()
	if section == nil {
		return
	}
	var want []string
	for line := range strings.Lines(*section) {
		want = append(want, strings.TrimSuffix(line, "\n"))
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// ending puts what Observe was told into words.
func ending(q QueryResult) string {
	switch {
	case q.Err != nil && q.Err.Bogus():
		return q.Type + " bogus"
	case q.Err != nil:
		return q.Type + " " + q.Err.Kind.String()
	case q.NXDomain:
		return q.Type + " nxdomain"
	case q.Empty:
		return q.Type + " empty"
	}
	return q.Type + " records"
}

// named puts the names of servers in the place of their addresses.
func (p *play) named(s string) string {
	for _, srv := range p.servers {
		s = strings.ReplaceAll(s, srv.addr, srv.name)
	}
	return s
}

// ask asks, and puts the answer into words.
func ask(t *testing.T, r *Resolver, typ, name string) string {
	switch typ {
	case "TXT":
		a, err := r.TXT(t.Context(), name)
		return show(t, a, err, strconv.Quote)
	case "MX":
		a, err := r.MX(t.Context(), name)
		return show(t, a, err, func(mx MX) string { return fmt.Sprintf("%d %q", mx.Pref, mx.Host) })
	case "TLSA":
		a, err := r.TLSA(t.Context(), name)
		return show(t, a, err, func(x TLSA) string { return fmt.Sprintf("%d %d %d %x", x.Usage, x.Selector, x.Matching, x.Data) })
	case "Alias":
		a, err := r.Alias(t.Context(), name)
		return show(t, a, err, strconv.Quote)
	case "Validating":
		return verdict(t, r.Validating(t.Context()))
	case "Addr":
		a, err := r.Addr(t.Context(), name)
		return show(t, a, err, netip.Addr.String)
	}
	t.Fatalf("ask %q", typ)
	return ""
}

// verdict puts what Validating found into words.
func verdict(t *testing.T, err error) string {
	if err == nil {
		return "validating\n"
	}
	if errors.Is(err, ErrNotValidating) {
		return err.Error() + "\n"
	}
	return show(t, Answer[string]{}, err, strconv.Quote)
}

func show[T any](t *testing.T, a Answer[T], err error, one func(T) string) string {
	if err != nil {
		e, ok := err.(*Error)
		if !ok {
			t.Fatalf("error of type %T: %v", err, err)
		}
		if len(a.Records) > 0 || a.Secure || a.Name != "" || a.TTL != 0 {
			t.Errorf("an answer beside the error: %+v", a)
		}
		return e.Kind.String() + ": " + e.Error() + "\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %v", a.Name, a.TTL)
	if a.Secure {
		b.WriteString(" secure")
	}
	if a.Unknown != nil {
		fmt.Fprintf(&b, " unknown (%v)", a.Unknown)
		if a.Secure {
			t.Error("secure and unknown")
		}
	}
	if a.NXDomain {
		b.WriteString(" nxdomain")
	}
	b.WriteByte('\n')
	for _, r := range a.Records {
		fmt.Fprintf(&b, "  %s\n", one(r))
	}
	return b.String()
}
