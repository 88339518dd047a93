package postconf

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"stsmap/postfix"
)

// TestTables: lists of tables are read as Postfix reads them.
func TestTables(t *testing.T) {
	for _, c := range []struct {
		list string
		want []Table
	}{
		{"", nil},
		{" , ", nil},
		{"hash:/etc/postfix/a, socketmap:inet:127.0.0.1:8461:postfix", []Table{
			{Text: "hash:/etc/postfix/a"}, {Text: "socketmap:inet:127.0.0.1:8461:postfix", Address: "127.0.0.1:8461", Map: "postfix"},
		}},
		{"inline:{ {a.example = may, b} , c=d }\tproxy:socketmap:unix:stsmap/map.sock:QUERY", []Table{
			{Text: "inline:{ {a.example = may, b} , c=d }"},
			{Text: "proxy:socketmap:unix:stsmap/map.sock:QUERY", Address: "unix:stsmap/map.sock", Map: "QUERY", Proxied: true},
		}},
		{"socketmap:inet:[::1]:8461:postfix", []Table{{Text: "socketmap:inet:[::1]:8461:postfix", Address: "[::1]:8461", Map: "postfix"}}},
		{"socketmap:nowhere", []Table{{Text: "socketmap:nowhere"}}},
		{"inline:{ open", []Table{{Text: "inline:{ open"}}},
		{"a } b", []Table{{Text: "a"}, {Text: "}"}, {Text: "b"}}},
	} {
		if diff := cmp.Diff(c.want, Tables(c.list)); diff != "" {
			t.Errorf("%q: %s", c.list, diff)
		}
	}
}

// TestReadSetup reads a configuration with the real postconf.
func TestReadSetup(t *testing.T) {
	for _, c := range []struct {
		level  string
		chroot bool // what "-" means
	}{{"0", true}, {"1", false}, {"3.6", false}} {
		dir := t.TempDir()
		for name, text := range map[string]string{
			"main.cf": "compatibility_level = " + c.level + "\nqueue_directory = /var/spool/" + `$mail_name` + "\nsmtp_dns_support_level = dnssec\nsmtp_tls_loglevel = 1\n",
			"master.cf": "smtp unix - - - - - smtp\nrelay unix - - y - - smtp\n  -o smtp_tls_loglevel=$smtpd_tls_loglevel\n  -o smtp_dns_support_level=enabled\n" +
				"pickup unix n n n 60 1 pickup\n",
		} {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			// postconf waits until the file is two seconds old.
			then := time.Now().Add(-time.Minute)
			if err := os.Chtimes(path, then, then); err != nil {
				t.Fatal(err)
			}
		}
		s, err := ReadSetup(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		want := []Service{
			{Name: "smtp/unix", Program: "smtp", Chroot: c.chroot, defaultChroot: true},
			{Name: "relay/unix", Program: "smtp", Chroot: true, Own: map[string]string{"smtp_tls_loglevel": "0", "smtp_dns_support_level": "enabled"}},
			{Name: "pickup/unix", Program: "pickup", Root: true},
		}
		if diff := cmp.Diff(want, s.Services, cmp.AllowUnexported(Service{})); diff != "" {
			t.Errorf("compatibility_level = %s: %s", c.level, diff)
		}
		if queue, ok := s.Main("queue_directory"); !ok || queue != "/var/spool/Postfix" {
			t.Errorf("queue_directory = %s", queue)
		}
		if _, ok := s.Main("smtp_no_such"); ok {
			t.Error("a parameter that does not exist has a value")
		}
		smtp, relay := s.Services[0], s.Services[1]
		if s.Value(smtp, "smtp_tls_loglevel") != "1" || s.Value(relay, "smtp_tls_loglevel") != "0" {
			t.Error("the values of the services are mixed up")
		}
		if name, why := s.DNSSECDisabledBy(smtp); name != "" || why != "" {
			t.Errorf("against DNSSEC: %q, %q", name, why)
		}
		if name, why := s.DNSSECDisabledBy(relay); name != "smtp_dns_support_level" || why != "smtp_dns_support_level = enabled" {
			t.Errorf("against DNSSEC: %q, %q", name, why)
		}
		if _, err := postfix.ParseRelease(s.Release); err != nil {
			t.Error(err)
		}
	}
	if _, err := ReadSetup(t.Context(), t.TempDir()); err == nil {
		t.Error("a directory without main.cf can be read")
	}
}
