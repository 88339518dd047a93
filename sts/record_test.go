package sts

import (
	"errors"
	"strconv"
	"testing"
)

// unquoteAll reads values in Go syntax.
func unquoteAll(t testing.TB, values []string) []string {
	t.Helper()
	var all []string
	for _, v := range values {
		s, err := strconv.Unquote(v)
		if err != nil {
			t.Fatalf("%s: %v", v, err)
		}
		all = append(all, s)
	}
	return all
}

func TestParseRecords(t *testing.T) {
	for _, c := range readCases(t, "testdata/records.txt", "txt id error") {
		t.Run(c.name, func(t *testing.T) {
			r, err := ParseRecords(unquoteAll(t, c.values["txt"]))
			if want := c.one("error", ""); want != "" {
				if err == nil || err.Error() != want || r != (Record{}) {
					t.Fatalf("got  %v %v\nwant %s", r, err, want)
				}
				var syntax *SyntaxError
				if !errors.As(err, &syntax) && err != ErrNoRecord && err != ErrManyRecords {
					t.Errorf("the error is a %T", err)
				}
				return
			}
			if want := c.one("id", ""); err != nil || want == "" || r.ID != want {
				t.Errorf("got id %q and %v, want id %q", r.ID, err, want)
			}
		})
	}
}

// Law: an error leaves nothing behind; an ID that is found is one that the grammar allows, and survives
// being put into the plainest record.
func FuzzParseRecords(f *testing.F) {
	for _, c := range readCases(f, "testdata/records.txt", "txt id error") {
		txts := append(unquoteAll(f, c.values["txt"]), "", "")
		f.Add(txts[0], txts[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, txts := range [][]string{{a}, {a, b}} {
			r, err := ParseRecords(txts)
			if err != nil {
				if r != (Record{}) {
					t.Fatalf("%q: %v and %v", txts, r, err)
				}
				continue
			}
			if again, err := ParseRecords([]string{"v=STSv1; id=" + r.ID}); err != nil || again != r {
				t.Fatalf("%q: %v became %v, %v", txts, r, again, err)
			}
		}
	})
}
