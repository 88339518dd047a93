package site

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

func TestDecodeReport(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/reports.txtar")
	if err != nil {
		t.Fatal(err)
	}
	if len(archive.Files)%2 != 0 || len(archive.Files) == 0 {
		t.Fatalf("%d sections", len(archive.Files))
	}
	for i := 0; i < len(archive.Files); i += 2 {
		datagram, want := archive.Files[i], archive.Files[i+1]
		t.Run(datagram.Name, func(t *testing.T) {
			r, err := DecodeReport([]byte(strings.TrimSuffix(string(datagram.Data), "\n")))
			if want.Name == "error" {
				if err == nil {
					t.Fatalf("no error: %v", r)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := r.String(); want.Name != "line" || got != strings.TrimSpace(string(want.Data)) {
				t.Errorf("got  %s\nwant %s", got, want.Data)
			}
		})
	}
}

// A policy may have bytes that are no UTF-8, which a txtar had better not have.
func TestDecodeReportOfOtherBytes(t *testing.T) {
	if r, err := DecodeReport([]byte("{\"d\": \"a.example\xff\",\"pr\": \"\",\"policies\":[]}")); err == nil {
		t.Errorf("no error: %v", r)
	}
}

func TestCollector(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "sock")
	c, err := collectAt(path)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	say := func(text string) {
		t.Helper()
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	say(`{"d": "a.example","pr": "1","policies":[]}`)
	say(`{"d": "b.example","pr": "2","policies":[]}`)
	say(`{"d": "a.example","pr": "3","policies":[]}`)
	for _, want := range []struct{ domain, record string }{{"b.example", "2"}, {"a.example", "1"}} {
		if r, err := c.Take(t.Context(), want.domain); err != nil || r.Record != want.record {
			t.Errorf("took %+v of %s: %v", r, want.domain, err)
		}
	}
	if rest, err := c.Rest(); err != nil || len(rest) != 1 || rest[0].Record != "3" {
		t.Errorf("the rest is %v: %v", rest, err)
	}
	if rest, err := c.Rest(); err != nil || len(rest) != 0 {
		t.Errorf("the rest of the rest is %v: %v", rest, err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err := c.Take(over, "a.example"); err == nil {
		t.Errorf("took %v, which nobody sent", r)
	}
	say("nonsense")
	if _, err := c.Rest(); err == nil {
		t.Error("nonsense was understood")
	}
	if err := c.Close(); err == nil {
		t.Error("nonsense was forgotten")
	}
}
