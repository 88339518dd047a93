package cache

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// golden calls f for each case of testdata/codec.txtar: a file NAME.json with
// an entry and NAME.hex with its encoding.
func golden(t testing.TB, f func(name string, e Entry, enc []byte)) {
	t.Helper()
	ar, err := txtar.ParseFile(filepath.Join("testdata", "codec.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	if len(ar.Files) == 0 || len(ar.Files)%2 != 0 {
		t.Fatalf("%d files, want pairs", len(ar.Files))
	}
	for i := 0; i < len(ar.Files); i += 2 {
		name, ok := strings.CutSuffix(ar.Files[i].Name, ".json")
		if !ok || ar.Files[i+1].Name != name+".hex" {
			t.Fatalf("%s and %s are no pair", ar.Files[i].Name, ar.Files[i+1].Name)
		}
		d := json.NewDecoder(strings.NewReader(string(ar.Files[i].Data)))
		d.DisallowUnknownFields()
		var e Entry
		if err := d.Decode(&e); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		f(name, e, unhex(t, string(ar.Files[i+1].Data)))
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCodecGolden pins the encoding: what is on disk today is read tomorrow.
func TestCodecGolden(t *testing.T) {
	golden(t, func(name string, e Entry, enc []byte) {
		got, err := e.AppendBinary([]byte("before"))
		if err != nil || string(got) != "before"+string(enc) {
			t.Errorf("%s: AppendBinary = %x, %v, want %x", name, got[len("before"):], err, enc)
		}
		var back Entry
		if err := back.UnmarshalBinary(enc); err != nil {
			t.Errorf("%s: UnmarshalBinary: %v", name, err)
		}
		if diff := cmp.Diff(e, back); diff != "" {
			t.Errorf("%s: UnmarshalBinary, -want +got:\n%s", name, diff)
		}
		for n := range enc {
			if err := back.UnmarshalBinary(enc[:n]); err == nil {
				t.Errorf("%s: the first %d of %d bytes are an entry too", name, n, len(enc))
			}
		}
		if back != e {
			t.Errorf("%s: a failed UnmarshalBinary left something behind", name)
		}
	})
}

// TestCodecBad reads testdata/codec-bad.txt: hex, #, what the error says.
func TestCodecBad(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "codec-bad.txt"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		n++
		enc, want, _ := strings.Cut(line, "#")
		var e Entry
		err := e.UnmarshalBinary(unhex(t, enc))
		if want = strings.TrimSpace(want); err == nil || want == "" || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", enc, err, want)
		}
	}
	if n == 0 {
		t.Error("no cases")
	}
}

// TestStamp: comparing stored times is comparing stamps, at the edges too.
func TestStamp(t *testing.T) {
	west := time.FixedZone("", -12*3600)
	for _, c := range []struct {
		t    time.Time
		want int64
	}{
		{time.Time{}, 0},
		{time.Time{}.In(west), 0},
		{time.Time{}.Add(999 * time.Microsecond), 0},
		{time.Time{}.Add(-time.Nanosecond), -1},
		{time.Unix(0, 0), -epoch},
		{time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC), maxStamp},
		{time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), -1},
		{time.Unix(1<<61, 0), -1},
	} {
		if got := stamp(c.t); got != c.want {
			t.Errorf("stamp(%v) = %d, want %d", c.t, got, c.want)
		}
	}
}

// FuzzEntry: what can be encoded comes back the same.
func FuzzEntry(f *testing.F) {
	golden(f, func(_ string, e Entry, _ []byte) {
		f.Add(e.Domain, e.ID, e.Policy, e.Error, e.Fetched.UnixMilli(), e.Refresh.UnixMilli(), e.Failures)
	})
	f.Fuzz(func(t *testing.T, domain, id, policy, text string, fetched, refresh int64, failures int) {
		e := Entry{
			Domain: domain, ID: id, Policy: policy, Error: text, Result: id, FailedID: text,
			Fetched: time.UnixMilli(fetched).UTC(), Refresh: time.UnixMilli(refresh).UTC(), Failures: failures,
		}
		enc, err := e.AppendBinary(nil)
		if err != nil {
			if len(enc) != 0 {
				t.Fatalf("an error, and %x", enc)
			}
			return
		}
		var got Entry
		if err := got.UnmarshalBinary(enc); err != nil || !got.same(e) {
			t.Fatalf("%+v became %+v, %v", e, got, err)
		}
		rest, err := Encode(e)
		if err != nil || !strings.HasSuffix(string(enc), rest) || len(rest)+len(domain) >= len(enc) {
			t.Fatalf("Encode = %x, %v, and the whole encoding is %x", rest, err, enc)
		}
		if got, err := Decode(domain, rest); err != nil || !got.same(e) {
			t.Fatalf("%+v became %+v, %v", e, got, err)
		}
	})
}

// same is == but for the two values that are the zero time.
func (e Entry) same(f Entry) bool {
	if e.Fetched.Equal(f.Fetched) && e.Refresh.Equal(f.Refresh) {
		f.Fetched, f.Refresh = e.Fetched, e.Refresh
	}
	return e == f
}

// FuzzDecode: bytes are either refused, leaving nothing behind, or the one
// encoding of what they decode to.
func FuzzDecode(f *testing.F) {
	golden(f, func(_ string, _ Entry, enc []byte) { f.Add(enc) })
	f.Fuzz(func(t *testing.T, b []byte) {
		var e Entry
		if err := e.UnmarshalBinary(b); err != nil {
			if e != (Entry{}) {
				t.Fatalf("an error, and %+v", e)
			}
			return
		}
		again, err := e.AppendBinary(nil)
		if err != nil || string(again) != string(b) {
			t.Fatalf("%x became %x, %v", b, again, err)
		}
	})
}
