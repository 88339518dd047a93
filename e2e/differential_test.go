package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/smtp"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"stsmap/e2e/site"
	"stsmap/socketmap"
)

// most is how many failures are shown for each suite.
const most = 40

// batch is how many policies there are in one small Internet.
const batch = 250

// TestDifferential makes policies by chance, as nasty as RFC 8461 allows, lets the daemon fetch them, and has the
// postmap(1) and the smtp(8) of each suite read what the daemon says of them. What that should be is computed here a
// second time, from the policies as they were made and from Postfix's rules, and so is where the mail has to go.
//
// E2E_DIFF_POLICIES is how many policies there are, and E2E_DIFF_SEED makes them the ones of another run.
func TestDifferential(t *testing.T) {
	number, seed := 300, rand.Uint64()
	for name, set := range map[string]func(string) error{
		"E2E_DIFF_POLICIES": func(s string) (err error) { number, err = strconv.Atoi(s); return err },
		"E2E_DIFF_SEED":     func(s string) (err error) { seed, err = strconv.ParseUint(s, 0, 64); return err },
	} {
		if value := os.Getenv(name); value != "" {
			if err := set(value); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	number = max(number, minimum)
	t.Logf("%d policies; again: E2E_DIFF_SEED=%#x E2E_DIFF_POLICIES=%d", number, seed, number)
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(number/batch+10)*hang)
	defer cancel()
	binary := os.Getenv("E2E_BINARY")
	if binary == "" {
		var err error
		if binary, err = site.Build(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for _, suite := range suites() {
		t.Run(suite, func(t *testing.T) {
			d := begin(t, ctx, binary, suite)
			for from := 0; from < number; from += batch {
				d.all = nil
				for n := from; n < min(from+batch, number); n++ {
					d.all = append(d.all, generate(seed, n))
				}
				d.check()
			}
			d.verdict()
		})
	}
}

// A differential is the comparison with the Postfix of one suite.
type differential struct {
	t          *testing.T
	ctx        context.Context
	site       *site.Site
	collector  *site.Collector // nil if Postfix has no TLSRPT
	attributes bool            // Postfix knows policy attributes

	all   []testPolicy         // those that are being looked at
	forms map[inquiry]form     // what the daemon said of them
	reply map[inquiry]string   // in its own words
	mail  map[inquiry]delivery // what became of the messages
	mark  int64                // mail.log from here on is about them
	seen  map[string]int       // how often a reply had which form, as stage names them

	mu       sync.Mutex // guards what follows
	failures int
}

// An inquiry is a lookup of a test policy, under the name that belongs to a service of master.cf.
type inquiry struct {
	service string
	n       int
}

// A delivery is what mail.log says of the one message to a domain by a service.
type delivery struct{ relay, status, why string }

// tables are the services, each with a name of its own for lookups.
func tables() map[string]string {
	return map[string]string{
		"auto": "postfix", "query": "QUERY", "always": "QUERYwithTLSRPT", "may": "may", "encrypt": "encrypt", "strict": "strict",
	}
}

func table(service string) string {
	return "socketmap:inet:" + site.LookupAddr + ":" + tables()[service]
}

// begin makes the site, with a transport for each service, and starts the daemon.
func begin(t *testing.T, ctx context.Context, binary, suite string) *differential {
	r, err := root(ctx, suite)
	must(t, err)
	// Reports come by the dozen, and Postfix sends them without waiting for room in the queue.
	must(t, os.WriteFile("/proc/sys/net/unix/max_dgram_qlen", []byte("10000\n"), 0o644))
	s, err := site.Start(ctx, "", binary, r)
	must(t, err)
	d := &differential{t: t, ctx: ctx, site: s, attributes: r != nil, seen: make(map[string]int)}
	t.Cleanup(func() { d.end() })
	master, err := os.OpenFile(filepath.Join(s.Postfix.Conf, "master.cf"), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	var routes strings.Builder
	for service := range tables() {
		fmt.Fprintf(&routes, "/^%s-/ %[1]s:\n", service)
		_, err := fmt.Fprintf(master, "%s unix - - n - 10 smtp -o syslog_name=postfix/%[1]s -o smtp_tls_policy_maps=%s\n",
			service, table(service))
		must(t, err)
	}
	must(t, master.Close())
	transport := filepath.Join(s.Postfix.Conf, "transport")
	must(t, os.WriteFile(transport, []byte(routes.String()), 0o644))
	settings := []string{"transport_maps = regexp:" + transport}
	if d.attributes {
		d.collector, err = site.Collect(s.Postfix)
		must(t, err)
		settings = append(settings, site.ReportTo()...)
	}
	must(t, s.Postfix.Configure(settings...))
	must(t, s.StartDaemon(ctx, `
fetch.max_size = 524288
fetch.refresh = "24h"
maps.may.testing = "report"
maps.may.level = "may"
maps.encrypt.testing = "report"
maps.encrypt.level = "encrypt"
maps.strict.testing = "enforce"
`))
	return d
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (d *differential) end() {
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	if daemon := d.site.Daemon; daemon != nil {
		if err := daemon.Stop(ctx); err != nil {
			d.t.Error(err)
		}
		if daemon.Log.Find(regexp.MustCompile("panic"), 0) != nil {
			d.t.Errorf("stsmap has had a panic:\n%s", strings.Join(daemon.Log.Since(0), "\n"))
		}
	}
	if d.collector != nil {
		if err := d.collector.Close(); err != nil {
			d.t.Error(err)
		}
	}
	if err := d.site.Close(); err != nil {
		d.t.Error(err)
	}
}

// check looks at d.all.
func (d *differential) check() {
	d.forms, d.reply, d.mail = make(map[inquiry]form), make(map[inquiry]string), make(map[inquiry]delivery)
	d.mark = d.site.Postfix.Log.Mark()
	must(d.t, d.site.Update(d.world()))
	start := time.Now()
	d.ask()
	asked := time.Now()
	d.postmaps()
	mapped := time.Now()
	d.deliver()
	c := d.connections()
	for i := range d.all {
		d.compareDelivery(&d.all[i], &c)
	}
	d.complaints()
	d.reports()
	d.t.Logf("%d policies, %d lookups in %.1f s, postmap in %.1f s, %d messages in %.1f s", len(d.all), len(d.reply),
		asked.Sub(start).Seconds(), mapped.Sub(asked).Seconds(), len(d.mail), time.Since(mapped).Seconds())
}

// errorf says what is wrong with a test policy, and shows it; with none, if s is nil. What is wrong with one policy is often
// wrong with all, so that it ends with the first few dozen.
func (d *differential) errorf(s *testPolicy, format string, args ...any) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failures++; d.failures > most {
		return
	}
	if s == nil {
		d.t.Errorf(format, args...)
		return
	}
	body := strconv.QuoteToASCII(s.body)
	if len(body) > 2000 {
		body = fmt.Sprintf("%s... (%d bytes)", body[:2000], len(s.body))
	}
	d.t.Errorf("policy %d (%s): "+format+"\n\t%s: %s", append(append([]any{s.n, s.kind}, args...), s.hop, body)...)
}

// world is the small Internet of d.all. The exchangers of each domain are, from the best on: one without STARTTLS, that
// the policy allows if it can; a stranger, with a certificate for its own name and for the domain; and one that the
// policy allows, with a certificate. So at "may" the first gets the message, at "encrypt" the second, at "secure" the
// third, and the second too if match= has "hostname", "nexthop" or "dot-nexthop".
func (d *differential) world() string {
	var dns, https, smtp, policies strings.Builder
	fmt.Fprintf(&smtp, "plain.fixture.example addr=127.0.0.9 cert=none\n")
	for i := range d.all {
		s := &d.all[i]
		fmt.Fprintf(&dns, "_mta-sts.%s. TXT \"v=STSv1; id=1;\"\nmta-sts.%[1]s. A 127.0.0.2\n", s.domain)
		fmt.Fprintf(&dns, "_smtp._tls.%s. TXT \"v=TLSRPTv1; rua=mailto:tlsrpt@reports.example\"\n", s.domain)
		for j, host := range []string{s.plain(), s.other(), s.good()} {
			fmt.Fprintf(&dns, "%s. MX %d %s.\n%[3]s. A %s\n", s.domain, 10*(j+1), host, s.addr(j))
		}
		fmt.Fprintf(&https, "mta-sts.%s addr=127.0.0.2 policy=%d\n", s.domain, s.n)
		fmt.Fprintf(&policies, "-- policy-quoted/%d --\n%s\n", s.n, strconv.QuoteToASCII(s.body))
		fmt.Fprintf(&smtp, "%s addr=%s names=%s\n%s addr=%s\n", s.other(), s.addr(1), s.domain, s.good(), s.addr(2))
	}
	return "-- dns --\n" + dns.String() + "-- https --\n" + https.String() + policies.String() + "-- smtp --\n" + smtp.String()
}

func (s *testPolicy) plain() string {
	if len(s.hosts) > 1 {
		return s.hosts[1]
	}
	return "plain." + s.domain
}

func (s *testPolicy) other() string { return "out." + s.domain }

func (s *testPolicy) good() string {
	if len(s.hosts) > 0 {
		return s.hosts[0]
	}
	return "good." + s.domain
}

// addr returns the address of an exchanger, from 0 on.
func (s *testPolicy) addr(which int) string {
	if which == 0 {
		return "127.0.0.9"
	}
	return fmt.Sprintf("127.%d.%d.%d", which, s.n/250, s.n%250+1)
}

// ask puts all questions to the daemon, which fetches the policies at the first, and compares the replies with what
// they should be.
func (d *differential) ask() {
	var mu sync.Mutex // guards d.reply
	var clients sync.WaitGroup
	questions := make(chan inquiry)
	for range 16 {
		clients.Go(func() {
			c, err := socketmap.Dial(d.ctx, site.LookupAddr)
			if err != nil {
				d.t.Error(err)
			}
			for q := range questions {
				if err != nil {
					continue
				}
				var reply socketmap.Reply
				if reply, err = c.Do(d.ctx, tables()[q.service], d.testPolicy(q.n).hop); err != nil {
					d.errorf(d.testPolicy(q.n), "%s: %v", q.service, err)
					continue
				}
				mu.Lock()
				d.reply[q] = reply.Status.String() + " " + reply.Text
				mu.Unlock()
			}
			if c != nil {
				c.Close()
			}
		})
	}
	for service := range tables() {
		for i := range d.all {
			questions <- inquiry{service, d.all[i].n}
		}
	}
	close(questions)
	clients.Wait()
	for service := range tables() {
		for i := range d.all {
			d.compare(&d.all[i], inquiry{service, d.all[i].n})
		}
	}
}

func (d *differential) testPolicy(n int) *testPolicy { return &d.all[n-d.all[0].n] }

// compare finds the form that a reply has.
func (d *differential) compare(s *testPolicy, q inquiry) {
	reply, ok := d.reply[q]
	if !ok {
		return // said already
	}
	difference := ""
	for _, f := range s.forms(q.service, d.attributes) {
		// A Postfix that knows no attributes is not told any, but by the name that is for others.
		if difference = f.unlike(reply, d.attributes || q.service == "always"); difference == "" {
			d.forms[q] = f
			d.seen[q.service+" "+f.stage()]++
			return
		}
	}
	d.errorf(s, "%s: the reply %s: %.500q", q.service, difference, reply)
}

// postmaps has the real postmap ask.
func (d *differential) postmaps() {
	var running sync.WaitGroup
	for service := range tables() {
		var keys []string
		want := make(map[string]string)
		for i := range d.all {
			s := &d.all[i]
			switch status, text, _ := strings.Cut(d.reply[inquiry{service, s.n}], " "); status {
			case "OK":
				want[s.hop] = text
				keys = append(keys, s.hop)
			case "NOTFOUND":
				keys = append(keys, s.hop)
			case "TEMP": // ends postmap, slowly
				running.Go(func() { d.postmapFails(s, service, text) })
			}
		}
		running.Go(func() { d.postmap(service, keys, want) })
	}
	running.Wait()
}

// postmap looks up keys, all at once; if that fails, one by one, to see which it was.
func (d *differential) postmap(service string, keys []string, want map[string]string) {
	got, err := d.site.Postfix.Postmap(d.ctx, table(service), keys)
	if err != nil {
		d.errorf(nil, "%s: %v", service, err)
	}
	for i := range d.all {
		s := &d.all[i]
		if !slices.Contains(keys, s.hop) {
			continue
		}
		if err != nil {
			var alone error
			if got, alone = d.site.Postfix.Postmap(d.ctx, table(service), []string{s.hop}); alone != nil {
				d.errorf(s, "%s: %v", service, alone)
				continue
			}
		}
		if got[s.hop] != want[s.hop] {
			d.errorf(s, "%s: postmap finds %.500q, not %.500q", service, got[s.hop], want[s.hop])
		}
	}
}

// postmapFails looks up a key that has to fail, with a text of which Postfix prints 200 bytes (util/dict_sockmap.c).
func (d *differential) postmapFails(s *testPolicy, service, text string) {
	_, err := d.site.Postfix.Postmap(d.ctx, table(service), []string{s.hop})
	if err == nil || !strings.Contains(err.Error(), "socketmap server temporary error: "+text[:min(len(text), 200)]) {
		d.errorf(s, "%s: TEMP %s, but postmap says: %v", service, text, err)
	}
}

// deliver hands in messages to all domains, for the services that matter to each, and waits for what becomes of them.
func (d *differential) deliver() {
	var to []string
	for i := range d.all {
		s := &d.all[i]
		services := []string{"auto"}
		switch {
		case !s.valid:
		case s.mode == "testing":
			services = append(services, "may", "encrypt", "strict")
		case s.mode == "enforce":
			services = append(services, "query")
			if d.attributes && s.n%4 == 0 || !d.attributes && s.n < 4 {
				services = append(services, "always")
			}
		}
		for _, service := range services {
			if _, ok := d.forms[inquiry{service, s.n}]; ok {
				to = append(to, fmt.Sprintf("%s-%d@%s", service, s.n, s.hop))
			}
		}
	}
	for some := range slices.Chunk(to, 500) {
		must(d.t, smtp.SendMail(site.Submission, nil, "", some, []byte("Subject: hello\r\n\r\nHello.\r\n")))
	}
	re := regexp.MustCompile(` to=<([a-z]+)-(\d+)@[^>]*>, relay=([^,]+), .* status=([a-z]+) \((.*)\)$`)
	for {
		for _, line := range d.site.Postfix.Log.Since(d.mark) {
			if m := re.FindStringSubmatch(line); m != nil {
				n, _ := strconv.Atoi(m[2])
				d.mail[inquiry{m[1], n}] = delivery{m[3], m[4], m[5]}
			}
		}
		if len(d.mail) >= len(to) {
			return
		}
		if d.ctx.Err() != nil {
			log := strings.Join(d.site.Postfix.Log.Since(d.mark), "\n")
			d.t.Fatalf("%d of %d messages have an outcome:\n%s", len(d.mail), len(to), log)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
