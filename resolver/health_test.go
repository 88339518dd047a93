package resolver

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestExamine holds that each server has a Health of its own, with what is wrong with it.
func TestExamine(t *testing.T) {
	const (
		root  = ". 60 IN NS a.example.\n"
		bogus = "bogus.example. 60 IN A 192.0.2.1\n"
	)
	for _, c := range []struct{ name, script, want string }{
		{"validates", root + "@ad\n@opt\n@fails bogus.example.", "edns validates trusted"},
		{"does not validate", root + bogus + "@opt", "edns trusted"},
		{"says so and does not", root + bogus + "@ad\n@opt", "edns validates trusted bogus"},
		{"without EDNS", root + "@no-edns FORMERR", "trusted"},
		{"ignores EDNS", root, "trusted"},
		{"without TCP", root + "@opt\n@notcp", "edns trusted; tcp: . NS: cannot ask"},
		{"TCP is closed", root + "@opt\n@tcp-closes", "edns trusted; tcp: . NS: cannot ask"},
		{"refuses", root + "@rcode REFUSED", "trusted; . NS: REFUSED from"},
		{"fails", root + "@rcode SERVFAIL", "trusted; . NS: SERVFAIL from"},
		{"silent", root + "@silent\n@notcp", "trusted; . NS: timeout: no answer from"},
	} {
		s := startServer(t, c.name, c.script)
		r, err := New(Config{Servers: []string{s.addr}, Timeout: 500 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		all := r.Examine(t.Context(), "bogus.example")
		if len(all) != 1 || all[0].Server != s.addr || !strings.HasPrefix(told(all[0]), c.want) {
			t.Errorf("%s: %+v, told %q, want %q", c.name, all, told(all[0]), c.want)
		}
	}
}

// told is a Health in words.
func told(h Health) string {
	var words []string
	for _, w := range []struct {
		is   bool
		word string
	}{{h.EDNS, "edns"}, {h.Validates, "validates"}, {h.Trusted, "trusted"}, {h.AnswersBogus, "bogus"}} {
		if w.is {
			words = append(words, w.word)
		}
	}
	s := strings.Join(words, " ")
	if h.Err != nil {
		return s + "; " + h.Err.Error()
	}
	if h.TCP != nil {
		s += "; tcp: " + h.TCP.Error()
	}
	return s
}

// TestNameservers: as the C library reads them.
func TestNameservers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if _, err := Nameservers(path); err == nil {
		t.Error("a file that is not there can be read")
	}
	for text, want := range map[string][]netip.Addr{
		"": nil,
		"nameserver 127.0.0.1\nsearch example\nnameserver ::1\n": {netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")},
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := Nameservers(path); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %s, %v", text, fmt.Sprint(got), err)
		}
	}
}
