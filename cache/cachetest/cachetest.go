// Package cachetest tests the promises of a cache.Store: [TestStore] those of
// every store, [TestDurable] those of a store that outlives its process,
// [TestShared] those of a store of several daemons, and [TestURLs] and [FuzzURL]
// those of a store that is named by a URL. Each promise is a subtest, named for
// it. [BenchmarkStore] measures a store.
//
// It asserts nothing about speed, what a bounded store evicts, and failures of a
// disk or a network: these differ, and are tested where the store is.
package cachetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"stsmap/cache"
)

// TestStore tests the stores that open returns: each time a new and empty one,
// with room for at least 2000 entries. TestStore closes them.
func TestStore(t *testing.T, open func(t *testing.T) cache.Store) {
	for _, promise := range []struct {
		name string
		test func(*testing.T, cache.Store)
	}{
		{"every field comes back", everyField},
		{"times are kept to the millisecond in UTC", milliseconds},
		{"an absence comes back", absence},
		{"what is not there is ErrNotFound", notFound},
		{"Put replaces all fields", replaces},
		{"Put of what cannot be encoded fails and writes nothing", unencodable},
		{"Put obeys Outdates", outdates},
		{"Replace takes the place of a policy fetched at the time named", replacesWrong},
		{"concurrent Puts end with the latest Fetched", concurrentPuts},
		{"concurrent Puts of many domains are all there", concurrentDomains},
		{"all may be called concurrently", everythingAtOnce},
		{"Touch moves Used forward and nothing else", touch},
		{"Delete forgets", deletes},
		{"Due takes what is due, oldest first", dueOrder},
		{"Due takes at most n", dueLimit},
		{"Due leases", dueLease},
		{"Due follows Put and Delete", dueFollows},
		{"Due gives no entry to two takers", dueTakers},
		{"All yields each once", allComplete},
		{"All can be left early", allBreak},
		{"All ends with the context", allContext},
		{"All lets its loop write", allWrites},
		{"odd domains are domains", oddDomains},
		{"a policy of 64 KiB fits", largePolicy},
		{"a context that is done stops everything", doneContext},
		{"Close ends everything", closed},
	} {
		t.Run(promise.name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
			promise.test(t, s)
		})
	}
}

// base is when the tests play. Stores are free to look at the clock, so it is
// not long ago, and policies expire in the future.
func base() time.Time {
	return time.Now().UTC().Truncate(time.Hour)
}

// policy returns a policy with every field set.
func policy(domain string) cache.Entry {
	b := base()
	return cache.Entry{
		Domain: domain, ID: "20260101T000000",
		Policy:  "version: STSv1\r\nmode: enforce\r\nmx: *.example.net\r\nmax_age: 604800\r\n",
		Fetched: b.Add(1 * time.Second), Expires: b.Add(7 * 24 * time.Hour),
		Checked: b.Add(2 * time.Second), Recheck: b.Add(302 * time.Second),
		Failures: 3, FailedID: "20260202", Error: "tls: certificate has expired\x00\xff",
		Result: "certificate-expired", Retry: b.Add(10 * time.Minute),
		Refresh: b.Add(24 * time.Hour), Used: b,
	}
}

// none returns an absence.
func none(domain string) cache.Entry {
	b := base()
	return cache.Entry{Domain: domain, Expires: b.Add(2 * time.Hour), Checked: b, Recheck: b.Add(time.Hour), Used: b}
}

// want fails unless exactly e is stored.
func want(t *testing.T, s cache.Store, e cache.Entry) {
	t.Helper()
	got, err := s.Get(t.Context(), e.Domain)
	if err != nil {
		t.Fatalf("Get(%s): %v", e.Domain, err)
	}
	if diff := cmp.Diff(e, got); diff != "" {
		t.Fatalf("Get(%s), -want +got:\n%s", e.Domain, diff)
	}
}

func wantNone(t *testing.T, s cache.Store, domain string) {
	t.Helper()
	if e, err := s.Get(t.Context(), domain); !errors.Is(err, cache.ErrNotFound) || e != (cache.Entry{}) {
		t.Fatalf("Get(%s) = %+v, %v; want nothing and ErrNotFound", domain, e, err)
	}
}

func everyField(t *testing.T, s cache.Store) {
	e := policy("example.com")
	Put(t, s, e)
	want(t, s, e)
}

func milliseconds(t *testing.T, s cache.Store) {
	e := policy("example.com")
	exact := e
	zone := time.FixedZone("", -5*3600)
	for _, f := range []*time.Time{&e.Fetched, &e.Expires, &e.Checked, &e.Recheck, &e.Retry, &e.Refresh, &e.Used} {
		*f = f.Add(999*time.Microsecond + 999).In(zone)
	}
	Put(t, s, e)
	got, err := s.Get(t.Context(), e.Domain)
	// ==, for == is what a caller may use to see whether something changed.
	if err != nil || got != exact {
		t.Fatalf("Get = %+v, %v; want %+v", got, err, exact)
	}
}

func absence(t *testing.T, s cache.Store) {
	e := none("example.com")
	Put(t, s, e)
	want(t, s, e)
	e.Refresh = base().Add(time.Hour)
	Put(t, s, e)
	want(t, s, e)
	least := cache.Entry{Domain: "example.org"}
	Put(t, s, least)
	want(t, s, least)
}

func notFound(t *testing.T, s cache.Store) {
	Put(t, s, policy("example.com"))
	for _, d := range []string{"example.org", "xample.com", "example.co", "example.com.", "", strings.Repeat("a", 300)} {
		wantNone(t, s, d)
	}
}

func replaces(t *testing.T, s cache.Store) {
	e := policy("example.com")
	Put(t, s, e)
	next := cache.Entry{Domain: e.Domain, Policy: "version: STSv1\nmode: none\nmax_age: 60\n",
		Fetched: e.Fetched.Add(time.Hour), Expires: e.Expires, Checked: e.Fetched.Add(time.Hour)}
	Put(t, s, next)
	want(t, s, next)
}

func unencodable(t *testing.T, s cache.Store) {
	e := policy("example.com")
	Put(t, s, e)
	bad := e
	bad.Failures = -1
	far := e
	far.Expires = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	long := policy(strings.Repeat("a", 254))
	for _, bad := range []cache.Entry{bad, far, long, {}} {
		if err := s.Put(t.Context(), bad); err == nil {
			t.Errorf("Put(%+v) succeeded", bad)
		}
	}
	want(t, s, e)
	wantNone(t, s, long.Domain)
}

// outdates goes through the rule of Put: RFC 8461, Section 3.3, and its
// complement, that everything else replaces what is there.
func outdates(t *testing.T, s cache.Store) {
	old := policy("example.com")
	at := func(e cache.Entry, fetched, checked time.Time) cache.Entry {
		e.Fetched, e.Checked = fetched, checked
		return e
	}
	soon, over := old.Fetched.Add(time.Minute), old.Expires
	for _, c := range []struct {
		name        string
		stored, put cache.Entry
		refused     bool
	}{
		{"an earlier policy", old, at(old, old.Fetched.Add(-time.Millisecond), soon), true},
		{"an earlier policy, the stored one just not expired", old, at(old, old.Fetched.Add(-time.Hour), over.Add(-time.Millisecond)), true},
		{"an earlier policy, the stored one just expired", old, at(old, old.Fetched.Add(-time.Hour), over), false},
		{"the same policy", old, at(old, old.Fetched, soon), false},
		{"a later policy", old, at(old, old.Fetched.Add(time.Millisecond), soon), false},
		{"an absence", old, at(none(""), time.Time{}, soon), true},
		{"an absence never checked", old, at(none(""), time.Time{}, time.Time{}), true},
		{"an absence after expiry", old, at(none(""), time.Time{}, over.Add(time.Hour)), false},
		{"an absence over an absence", none(""), none(""), false},
		{"an absence over a later absence", at(none(""), soon, soon), none(""), false},
		{"a policy over an absence", at(none(""), soon, soon), old, false},
		{"an absence with a Refresh", old, cache.Entry{Refresh: over}, true},
	} {
		stored, next := c.stored, c.put
		stored.Domain = strings.ReplaceAll(strings.ReplaceAll(c.name, " ", "-"), ",", "") + ".example"
		next.Domain = stored.Domain
		Put(t, s, stored)
		err := s.Put(t.Context(), next)
		if c.refused {
			if !errors.Is(err, cache.ErrOutdated) {
				t.Errorf("%s: Put = %v, want ErrOutdated", c.name, err)
			}
			want(t, s, stored)
			continue
		}
		if err != nil {
			t.Errorf("%s: Put = %v", c.name, err)
			continue
		}
		want(t, s, next)
	}
}

// replacesWrong: only the policy that was found to be wrong gives way, in one
// step; whatever is there instead is treated as Put does.
func replacesWrong(t *testing.T, s cache.Store) {
	stored := policy("example.com")
	earlier := stored
	earlier.ID, earlier.Fetched, earlier.Checked = "earlier", stored.Fetched.Add(-time.Hour), stored.Checked.Add(time.Minute)
	absent := none("example.com")
	absent.Checked = earlier.Checked
	for _, c := range []struct {
		name    string
		put     cache.Entry
		wrong   time.Time
		refused bool
	}{
		{"another time", earlier, stored.Fetched.Add(time.Millisecond), true},
		{"the time of what is put", earlier, earlier.Fetched, true},
		{"no time", earlier, time.Time{}, true},
		{"the time stored", earlier, stored.Fetched, false},
		{"the time stored, below a millisecond", earlier, stored.Fetched.Add(time.Microsecond), false},
		{"an absence", absent, stored.Fetched, false},
	} {
		if err := s.Delete(t.Context(), stored.Domain); err != nil {
			t.Fatal(err)
		}
		Put(t, s, stored)
		err := s.Replace(t.Context(), c.put, c.wrong)
		switch {
		case c.refused && !errors.Is(err, cache.ErrOutdated):
			t.Errorf("%s: Replace = %v, want ErrOutdated", c.name, err)
		case !c.refused && err != nil:
			t.Errorf("%s: Replace = %v", c.name, err)
		case c.refused:
			want(t, s, stored)
		default:
			want(t, s, c.put)
		}
	}
	// What does not outdate the entry is replaced, whatever is wrong.
	later := stored
	later.ID, later.Fetched = "later", stored.Fetched.Add(time.Hour)
	for _, e := range []cache.Entry{stored, later} {
		if err := s.Replace(t.Context(), e, base()); err != nil {
			t.Errorf("Replace with %s = %v", e.ID, err)
		}
		want(t, s, e)
	}
	if err := s.Replace(t.Context(), cache.Entry{}, stored.Fetched); err == nil {
		t.Error("Replace with an entry without a domain succeeded")
	}
}

func touch(t *testing.T, s cache.Store) {
	for _, e := range []cache.Entry{policy("example.com"), none("example.org")} {
		Put(t, s, e)
		moved := e
		moved.Used = e.Used.Add(5 * time.Hour)
		for _, used := range []time.Time{e.Used.Add(-time.Hour), moved.Used, e.Used.Add(time.Hour), {}} {
			if err := s.Touch(t.Context(), map[string]time.Time{e.Domain: used}); err != nil {
				t.Fatalf("Touch: %v", err)
			}
		}
		want(t, s, moved)
	}
	if err := s.Touch(t.Context(), map[string]time.Time{"example.net": base()}); err != nil {
		t.Errorf("Touch of an unknown domain: %v", err)
	}
	wantNone(t, s, "example.net")
}

func deletes(t *testing.T, s cache.Store) {
	gone, stays := policy("example.com"), policy("example.org")
	Put(t, s, gone, stays, none("example.net"))
	for _, d := range []string{gone.Domain, gone.Domain, "example.net", "unknown.example", ""} {
		if err := s.Delete(t.Context(), d); err != nil {
			t.Fatalf("Delete(%q): %v", d, err)
		}
	}
	wantNone(t, s, gone.Domain)
	wantNone(t, s, "example.net")
	want(t, s, stays)
	// What was deleted refuses nothing any more.
	early := gone
	early.Fetched = gone.Fetched.Add(-time.Hour)
	Put(t, s, early)
	want(t, s, early)
}

func oddDomains(t *testing.T, s cache.Store) {
	label := strings.Repeat("a", 63)
	domains := []string{
		"a", "com", "a.b", "xn--bcher-kva.example", "_tls.example", "1.2.3.4", "a-b.example",
		label + ".example", label[:62] + "b.example", label + "." + label + "." + label + "." + label[:61],
		"example.com", "sub.example.com", "EXAMPLE.com", "example.com\x00", "%_'\";--",
	}
	var all []cache.Entry
	for i, d := range domains {
		e := policy(d)
		e.ID = fmt.Sprint(i)
		all = append(all, e)
	}
	Put(t, s, all...)
	for _, e := range all {
		want(t, s, e)
	}
}

func largePolicy(t *testing.T, s cache.Store) {
	e := policy("example.com")
	e.Policy = strings.Repeat("x", 64<<10)
	Put(t, s, e)
	want(t, s, e)
}

func doneContext(t *testing.T, s cache.Store) {
	e := policy("example.com")
	e.Refresh = base()
	Put(t, s, e)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, getErr := s.Get(ctx, e.Domain)
	_, dueErr := s.Due(ctx, base(), time.Hour, 10)
	for op, err := range map[string]error{
		"Get": getErr, "Due": dueErr, "Put": s.Put(ctx, policy("example.org")), "Replace": s.Replace(ctx, policy("example.org"), base()),
		"Touch": s.Touch(ctx, map[string]time.Time{e.Domain: e.Used.Add(time.Hour)}), "Delete": s.Delete(ctx, e.Domain),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s = %v, want context.Canceled", op, err)
		}
	}
	want(t, s, e)
	wantNone(t, s, "example.org")
}

func closed(t *testing.T, s cache.Store) {
	e := policy("example.com")
	Put(t, s, e)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
	}
	_, getErr := s.Get(t.Context(), e.Domain)
	_, dueErr := s.Due(t.Context(), base(), time.Hour, 10)
	errs := map[string]error{
		"Get": getErr, "Due": dueErr, "Put": s.Put(t.Context(), e), "Replace": s.Replace(t.Context(), e, base()),
		"Touch": s.Touch(t.Context(), map[string]time.Time{e.Domain: e.Used}), "Delete": s.Delete(t.Context(), e.Domain),
	}
	for _, err := range s.All(t.Context()) {
		errs["All"] = err
	}
	for _, op := range []string{"Get", "Due", "Put", "Replace", "Touch", "Delete", "All"} {
		if !errors.Is(errs[op], cache.ErrClosed) {
			t.Errorf("%s = %v, want ErrClosed", op, errs[op])
		}
	}
}
