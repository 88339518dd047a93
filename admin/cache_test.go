package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"stsmap/cache"
	"stsmap/dane"
	"stsmap/override"
	"stsmap/policy"
)

// A broken is a store whose walk fails after some entries, and that can refuse
// to delete.
type broken struct {
	cache.Store
	after  int
	delete error
}

var errDisk = errors.New("the disk is broken")

func (b *broken) All(ctx context.Context) iter.Seq2[cache.Entry, error] {
	return func(yield func(cache.Entry, error) bool) {
		n := 0
		for e, err := range b.Store.All(ctx) {
			if n++; n > b.after {
				yield(cache.Entry{}, errDisk)
				return
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

func (b *broken) Delete(ctx context.Context, domain string) error {
	if b.delete != nil {
		return b.delete
	}
	return b.Store.Delete(ctx, domain)
}

// remembering returns a client of a daemon with the store.
func remembering(t *testing.T, store cache.Store) *Client {
	t.Helper()
	engine := policy.New(policy.Config{Store: store})
	t.Cleanup(engine.Close)
	p := &Private{
		Status:  func() Status { return Status{Store: StoreStatus{Name: "memory:"}} },
		Engine:  engine,
		NextHop: func(key string) (dane.NextHop, bool) { return dane.NextHop{Domain: key}, key != "" },
		Row:     func(d *policy.Decision) (string, bool) { return d.Kind.String(), true },
		Size:    func() (int64, int64, bool) { return 0, 0, false },
	}
	return NewClient(serveOn(t, p.Handler()))
}

func enforced(domain string, fetched time.Time) cache.Entry {
	return cache.Entry{
		Domain: domain, ID: "1", Policy: "version: STSv1\nmode: enforce\nmx: mx." + domain + "\nmax_age: 86400\n",
		Fetched: fetched, Expires: fetched.Add(24 * time.Hour), Checked: fetched, Recheck: fetched, Refresh: fetched.Add(time.Hour),
	}
}

// TestRecord: an entry is the same after its way through JSON.
func TestRecord(t *testing.T) {
	at := time.Date(2026, 11, 24, 1, 2, 3, 0, time.UTC)
	full := enforced("example.com", at)
	full.Used, full.Retry, full.Failures = at, at.Add(time.Minute), 3
	full.FailedID, full.Error, full.Result = "2", "timeout \x1b", "sts-policy-fetch-error"
	for _, e := range []cache.Entry{full, {Domain: "none.example", Checked: at, Recheck: at}} {
		text, err := json.Marshal(RecordOf(e))
		if err != nil {
			t.Fatal(err)
		}
		var back Record
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e, back.entry()); diff != "" {
			t.Errorf("%s: %s", e.Domain, diff)
		}
	}
	r := RecordOf(full)
	if r.Mode != "enforce" || !slices.Equal(r.MX, []string{"mx.example.com"}) || r.MaxAge != 86400 {
		t.Errorf("%+v", r)
	}
	if full.Policy = "version: STSv9\n"; RecordOf(full).Mode != "unreadable" {
		t.Errorf("%+v", RecordOf(full))
	}
}

// TestBrokenWalk: an end that is none is not taken for one, wherever it comes.
func TestBrokenWalk(t *testing.T) {
	now := time.Now().Truncate(time.Millisecond)
	store := &broken{Store: cache.NewMemory(1000), after: 600}
	for i := range 700 {
		if err := store.Put(t.Context(), enforced(fmt.Sprintf("d%d.example", i), now)); err != nil {
			t.Fatal(err)
		}
	}
	c := remembering(t, store)
	got, failed := 0, error(nil)
	for _, err := range c.List(t.Context(), Filter{}) {
		if err != nil {
			failed = err
			break
		}
		got++
	}
	if got != 600 || failed == nil || !strings.Contains(failed.Error(), errDisk.Error()) {
		t.Errorf("list: %d records, then %v", got, failed)
	}
	if _, err := c.Stats(t.Context()); err == nil || !strings.Contains(err.Error(), errDisk.Error()) {
		t.Errorf("stats: %v", err)
	}
	store.after = 1000
	if n, err := c.ForgetMany(t.Context(), Filter{Match: "d1*.example"}); n != 111 || err != nil {
		t.Errorf("forgotten: %d, %v", n, err)
	}
	store.after = 10
	if _, err := c.ForgetMany(t.Context(), Filter{}); err == nil || !strings.Contains(err.Error(), "after 10 domains") {
		t.Errorf("forgetting: %v", err)
	}
	store.delete = errDisk
	if _, err := c.ForgetMany(t.Context(), Filter{}); err == nil || !strings.Contains(err.Error(), "after 0 domains") {
		t.Errorf("forgetting none: %v", err)
	}
	if err := c.Forget(t.Context(), "d2.example"); err == nil || !strings.Contains(err.Error(), errDisk.Error()) {
		t.Errorf("forgetting one: %v", err)
	}
}

// TestBrokenTable: a table that is not all of it ends with an error, however many
// rows there are, and says so itself.
func TestBrokenTable(t *testing.T) {
	for _, after := range []int{0, 600} {
		store := &broken{Store: cache.NewMemory(1000), after: after}
		for i := range 700 {
			if err := store.Put(t.Context(), enforced(fmt.Sprintf("d%d.example", i), time.Now())); err != nil {
				t.Fatal(err)
			}
		}
		var table strings.Builder
		err := remembering(t, store).Table(t.Context(), &table)
		if rows := strings.Count(table.String(), "\tenforce\n"); rows != after {
			t.Errorf("%d rows, want %d", rows, after)
		}
		if err == nil || !strings.Contains(err.Error(), errDisk.Error()) || !strings.HasSuffix(table.String(), "# INCOMPLETE: \"the disk is broken\"\n") {
			t.Errorf("after %d domains: %v\n%s", after, err, table.String())
		}
	}
}

// TestTable: each domain has one row, or a line with the reason why it has
// none. Expired overrides have no row. A domain without a row to which the row
// of a parent domain would apply has a line that says so.
func TestTable(t *testing.T) {
	now := time.Now().Truncate(time.Millisecond)
	store := cache.NewMemory(100)
	trial := enforced("testing.example", now)
	trial.Policy = strings.Replace(trial.Policy, "enforce", "testing", 1)
	inside := enforced("in.exempt.wide.example", now)
	old := enforced("old.example", now.Add(-48*time.Hour))
	for _, e := range []cache.Entry{enforced("a.example", now), trial, inside, old, {Domain: "none.example", Checked: now, Recheck: now.Add(time.Hour)}} {
		if err := store.Put(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	const file = `
		a.example defer
		testing.example enforce
		.wide.example reply encrypt
		b.wide.example reply may
		.exempt.wide.example exempt
		.deferred.wide.example defer
		alone.example exempt
	`
	var text strings.Builder
	for line := range strings.Lines(file) {
		if f := strings.Fields(line); len(f) > 1 {
			fmt.Fprintf(&text, "[[override]]\ndomain = %q\naction = %q\ntext = %q\n", f[0], f[1], strings.Join(f[2:], " "))
		}
	}
	text.WriteString("[[override]]\ndomain = \"over.example\"\naction = \"reply\"\ntext = \"may\"\nuntil = 2020-01-01\n")
	rules, err := override.Parse(text.String(), func(string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	engine := policy.New(policy.Config{Store: store})
	t.Cleanup(engine.Close)
	engine.Override(rules)
	var listed []OverrideStatus
	for _, o := range rules.All() {
		listed = append(listed, OverrideOf(o, now))
	}
	p := &Private{
		Status:  func() Status { return Status{Overrides: OverridesStatus{List: slices.Clone(listed)}} },
		Engine:  engine,
		NextHop: func(key string) (dane.NextHop, bool) { return dane.NextHop{Domain: key, Port: 25}, true },
		Row: func(d *policy.Decision) (string, bool) {
			switch d.Kind {
			case policy.Failed:
				return d.Reason, false
			case policy.None, policy.Testing:
				return "", false
			case policy.Replied:
				return d.Override.Text, true
			}
			return d.Kind.String(), true
		},
	}
	var out strings.Builder
	if err := NewClient(serveOn(t, p.Handler())).Table(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	got := slices.Sorted(strings.Lines(out.String()))
	want := []string{
		"# NOT EXPRESSIBLE: .deferred.wide.example: mail for everything below it waits\n",
		"# NOT EXPRESSIBLE: .exempt.wide.example: it has no row, but that of .wide.example is for it, too\n",
		"# NOT EXPRESSIBLE: a.example: override\n",
		"# NOT EXPRESSIBLE: in.exempt.wide.example: it has no row, but that of .wide.example is for it, too\n",
		".wide.example\tencrypt\n",
		"b.wide.example\tmay\n",
		"testing.example\tenforce\n",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestStats counts what counts.
func TestStats(t *testing.T) {
	now := time.Now().Truncate(time.Millisecond)
	store := cache.NewMemory(100)
	failing := enforced("failing.example", now.Add(-time.Hour)) // expires in 23 hours
	failing.Failures, failing.Error = 2, "timeout"
	expired := enforced("expired.example", now.Add(-25*time.Hour))
	lasting := enforced("lasting.example", now)
	lasting.Policy, lasting.Expires = strings.Replace(lasting.Policy, "86400", "864000", 1), now.Add(240*time.Hour)
	for _, e := range []cache.Entry{failing, expired, lasting, {Domain: "none.example", Checked: now, Recheck: now}} {
		if err := store.Put(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	got, err := remembering(t, store).Stats(t.Context())
	want := Stats{
		Domains: 4, Modes: map[string]int64{"enforce": 2, "testing": 0, "none": 0, Absent: 1},
		Expired: 1, Failing: 1, Soon: 1, Oldest: failing.Fetched, Store: "memory:",
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

// TestImport: each line for itself, and none that is longer than any can be.
func TestImport(t *testing.T) {
	now := time.Now().Truncate(time.Millisecond)
	store := cache.NewMemory(1000)
	c := remembering(t, store)
	line := func(e cache.Entry) string {
		text, err := json.Marshal(RecordOf(e))
		if err != nil {
			t.Fatal(err)
		}
		return string(text) + "\n"
	}
	good, older := line(enforced("a.example", now.Add(-time.Minute))), line(enforced("a.example", now.Add(-time.Hour)))
	for _, tt := range []struct {
		name, text      string
		imported, known int
		refused         int
		err             string
	}{
		{"nothing", "", 0, 0, 0, ""},
		{"empty lines", "\n\n \n", 0, 0, 0, ""},
		{"one, without an end of line", strings.TrimSuffix(good, "\n"), 1, 0, 0, ""},
		{"an older one", older, 0, 1, 0, ""},
		{"rubbish between", "{}\nrubbish\n" + line(enforced("b.example", now.Add(-time.Minute))), 1, 0, 2, ""},
		{"expired", line(enforced("c.example", now.Add(-25*time.Hour))), 0, 0, 1, ""},
		{"more rubbish than is told of", strings.Repeat("x\n", maxRefused+50), 0, 0, maxRefused + 50, ""},
		{"a line without end", "{\"domain\":\"" + strings.Repeat("x", maxLine), 0, 0, 0, "line 1 is longer than"},
	} {
		got, err := c.Import(t.Context(), strings.NewReader(tt.text))
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if err != nil || got.Imported != tt.imported || got.Known != tt.known || len(got.Refused)+got.Omitted != tt.refused || len(got.Refused) > maxRefused {
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		}
	}
	// What is held, and for how long, follows from the policy and not from the
	// line: a day from when it was downloaded.
	lying := enforced("lying.example", now.Add(-time.Minute))
	lying.Expires = now.Add(1000 * time.Hour)
	if _, err := c.Import(t.Context(), strings.NewReader(line(lying))); err != nil {
		t.Fatal(err)
	}
	if e, err := store.Get(t.Context(), "lying.example"); err != nil || !e.Expires.Equal(lying.Fetched.Add(24*time.Hour)) {
		t.Errorf("%+v, %v", e, err)
	}
}

// TestUnknown: Show returns ErrUnknown for a domain that is not cached, and an
// error for a key without a domain.
func TestUnknown(t *testing.T) {
	c := remembering(t, cache.NewMemory(10))
	if _, err := c.Show(t.Context(), "none.example"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	if _, err := c.Show(t.Context(), ""); err == nil || !strings.Contains(err.Error(), errNoDomain.Error()) {
		t.Error(err)
	}
	if err := c.Forget(t.Context(), "none.example"); err != nil {
		t.Error("forgetting what is not known:", err)
	}
	for _, err := range c.List(t.Context(), Filter{Mode: "strict"}) {
		if err == nil || !strings.Contains(err.Error(), "strict") {
			t.Error(err)
		}
	}
	cut := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/jsonl")
		_, _ = w.Write([]byte("{\"domain\":\"a.example\"}\n{\"domain\":"))
	})
	records, failed := 0, false
	for _, err := range NewClient(serveOn(t, cut)).List(t.Context(), Filter{}) {
		if failed = err != nil; !failed {
			records++
		}
	}
	if records != 1 || !failed {
		t.Errorf("cut off: %d records, failed: %t", records, failed)
	}
}
