package cache

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var errBack = errors.New("the back is broken")

// policyEntry is a policy that was downloaded at that time.
func policyEntry(domain, id string, fetched time.Time) Entry {
	return Entry{Domain: domain, ID: id, Policy: "version: STSv1", Fetched: fetched, Expires: fetched.Add(24 * time.Hour), Checked: fetched}
}

func testPolicy(i int, life time.Duration) Entry {
	now := time.Now()
	return Entry{
		Domain: fmt.Sprintf("policy-%d.example", i), ID: "20260101T000000",
		Policy:  "version: STSv1\r\nmode: enforce\r\n" + strings.Repeat("mx: *.mail.example.net\r\n", 4) + "max_age: 604800\r\n",
		Fetched: now, Expires: now.Add(life), Checked: now, Recheck: now.Add(5 * time.Minute),
		Refresh: now.Add(24 * time.Hour), Used: now,
	}
}

func testAbsence(i int) Entry {
	now := time.Now()
	return Entry{Domain: fmt.Sprintf("absence-%d.example", i), Expires: now.Add(time.Hour), Checked: now, Recheck: now.Add(time.Hour), Used: now}
}

func has(t *testing.T, s Store, e Entry) bool {
	t.Helper()
	_, err := s.Get(t.Context(), e.Domain)
	if err != nil && !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// TestMemoryForgets goes through what a full Memory forgets: vector C26 and
// RFC 8461, Section 10.2.
func TestMemoryForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(3)
		old, short, long := testAbsence(1), testPolicy(1, time.Hour), testPolicy(2, 48*time.Hour)
		put := func(e Entry) {
			t.Helper()
			if err := m.Put(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
		want := func(what string, there bool, entries ...Entry) {
			t.Helper()
			for _, e := range entries {
				if has(t, m, e) != there {
					t.Errorf("%s: %s is there: %v", what, e.Domain, !there)
				}
			}
		}
		put(short)
		put(long)
		put(old)
		put(testAbsence(2))
		want("an absence goes for an absence", false, old)
		want("an absence goes for an absence", true, testAbsence(2), short, long)

		put(testPolicy(3, 48*time.Hour))
		want("an absence goes for a policy", false, testAbsence(2))
		want("an absence goes for a policy", true, long, testPolicy(3, 0), short)

		put(testAbsence(3))
		want("no policy goes for an absence", false, testAbsence(3))
		want("no policy goes for an absence", true, long, testPolicy(3, 0), short)

		time.Sleep(2 * time.Hour)
		put(testAbsence(4))
		want("an expired policy goes first, though used last", false, short)
		want("an expired policy goes first", true, testPolicy(3, 0), testAbsence(4), long)

		put(testPolicy(5, time.Hour))
		want("then the absence", false, testAbsence(4))
		put(testPolicy(6, time.Hour))
		want("then the policy least recently used", false, testPolicy(3, 0))
		want("then the policy least recently used", true, long, testPolicy(5, 0), testPolicy(6, 0))

		put(testPolicy(7, -time.Hour))
		want("a policy that comes expired displaces none", false, testPolicy(7, 0))
	})
}
