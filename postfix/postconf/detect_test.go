package postconf

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// smtpService is a line of master.cf.
const smtpService = "smtp unix - - y - - smtp\n"

// detectCases are configurations, read by the postconf of this machine.
func detectCases() []struct{ name, main, master, why string } {
	return []struct{ name, main, master, why string }{
		{"default", "", smtpService, "main.cf: smtp_dns_support_level is not set"},
		{"enabled", "smtp_dns_support_level = enabled", smtpService, "main.cf: smtp_dns_support_level = enabled"},
		{"no such word", "smtp_dns_support_level = dnsec", smtpService, "main.cf: smtp_dns_support_level = dnsec"},
		{"disabled by the old name", "disable_dns_lookups = yes", smtpService, "main.cf: disable_dns_lookups = yes"},
		{"the new name wins", "disable_dns_lookups = yes\nsmtp_dns_support_level = dnssec", smtpService, ""},
		{"dnssec", "smtp_dns_support_level = dnssec", smtpService, ""},
		{"upper case", "smtp_dns_support_level=DNSSEC", smtpService, ""},
		{"by another name", "level = dnssec\nsmtp_dns_support_level = $level", smtpService, ""},
		{"on the next line", "smtp_dns_support_level =\n   dnssec", smtpService, ""},
		{"hosts", "smtp_dns_support_level = dnssec\nsmtp_host_lookup = native", smtpService, "main.cf: smtp_host_lookup = native"},
		{"hosts of both", "smtp_dns_support_level = dnssec\nsmtp_host_lookup = native, DNS", smtpService, ""},
		{"search list", "smtp_dns_support_level = dnssec\nsmtp_dns_resolver_options = res_dnsrch", smtpService, "main.cf: smtp_dns_resolver_options = res_dnsrch"},
		{"errors ignored", "smtp_dns_support_level = dnssec\nignore_mx_lookup_error = yes", smtpService, "main.cf: ignore_mx_lookup_error = yes"},
		{"lowered", "smtp_dns_support_level = dnssec", smtpService + "relay unix - - y - - smtp\n  -o syslog_name=a/$service_name\n  -o smtp_dns_support_level=enabled\n",
			"master.cf: relay/unix: smtp_dns_support_level = enabled"},
		{"unset", "smtp_dns_support_level = dnssec", smtpService + "relay unix - - y - - smtp -o smtp_dns_support_level=\n",
			"master.cf: relay/unix: smtp_dns_support_level is not set"},
		{"lowered by another name", "smtp_dns_support_level = dnssec", "relay unix - - y - - smtp -o { smtp_dns_support_level = $level } -o level=enabled\n",
			"master.cf: relay/unix: smtp_dns_support_level = enabled"},
		{"hosts of a service", "smtp_dns_support_level = dnssec", "relay unix - - y - - smtp -o smtp_host_lookup=native\n",
			"master.cf: relay/unix: smtp_host_lookup = native"},
		{"said again", "smtp_dns_support_level = dnssec", smtpService + "relay unix - - y - - smtp\n  -o smtp_dns_support_level=dnssec\n", ""},
		{"raised", "", "smtp unix - - y - - smtp -o smtp_dns_support_level=dnssec\n", "main.cf: smtp_dns_support_level is not set"},
		{"none of smtp's", "smtp_dns_support_level = dnssec", smtpService +
			"lmtp unix - - y - - lmtp -o smtp_dns_support_level=enabled\nsmtp inet n - y - - smtpd\n  -o smtp_dns_support_level=enabled\n", ""},
		{"no services", "smtp_dns_support_level = dnssec", "", ""},
	}
}

// TestDetect: which settings of main.cf and master.cf disable DNSSEC.
func TestDetect(t *testing.T) {
	for _, c := range detectCases() {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "main.cf"), "compatibility_level = 3.6\n"+c.main+"\n", 0o600)
			write(t, filepath.Join(dir, "master.cf"), c.master, 0o600)
			got, err := Detect(t.Context(), dir)
			want := Detected{DNSSEC: c.why == "", Why: c.why}
			if err != nil || got != want {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
			}
		})
	}
}

// TestDetectRefused: the error has the message of postconf.
func TestDetectRefused(t *testing.T) {
	good := "compatibility_level = 3.6\nsmtp_dns_support_level = dnssec\n"
	for name, files := range map[string][2]string{
		"main.cf: No such file":   {"", ""},
		"missing '=' after":       {"nonsense\n", smtpService},
		"master.cf: No such file": {good, ""},
		"macro processing error":  {"smtp_dns_support_level = $\n x\n", smtpService},
	} {
		dir := t.TempDir()
		for i, file := range []string{"main.cf", "master.cf"} {
			if files[i] != "" {
				write(t, filepath.Join(dir, file), files[i], 0o600)
			}
		}
		_, err := Detect(t.Context(), dir)
		_, ok := errors.AsType[*Error](err)
		if !ok || !strings.Contains(err.Error(), name) || !strings.HasPrefix(err.Error(), "postconf: fatal: ") {
			t.Errorf("%s: %v", name, err)
		}
		if _, ended := errors.AsType[*exec.ExitError](err); !ended {
			t.Errorf("%s: %v does not say how postconf ended", name, err)
		}
	}
}

// TestDetectOdd: programs that are not postconf, or an old one. Each is a script
// with the arguments in "$*".
func TestDetectOdd(t *testing.T) {
	const release = "echo mail_version = 3.7.11\n"
	const dnssec = release + "echo smtp_dns_support_level = dnssec; echo smtp_host_lookup = dns\n"
	for _, c := range []struct {
		name, script, err string
		want              Detected
	}{
		{name: "silent", script: "", err: `postconf: not understood: "mail_version = "`},
		{name: "prose", script: "echo Hello, world", err: `postconf: not understood: "Hello, world"`},
		{name: "no release", script: "echo mail_version = sendmail", err: `postconf: not understood: "mail_version = sendmail"`},
		{name: "failed in silence", script: "exit 3", err: "postconf: exit status 3"},
		{name: "failed with words", script: "echo 'postconf: warning: a' >&2; echo 'postconf: fatal: b' >&2; exit 1", err: "postconf: fatal: b"},
		{name: "too much", script: release + "while echo a = aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; do :; done", err: "postconf: too much output"},
		{name: "odd services", script: `case "$*" in *-M*) echo smtp unix;; *-P*) ;; *) ` + dnssec + `;; esac`, err: `postconf: not understood: "smtp unix"`},
		{name: "odd overrides", script: `case "$*" in *-M*) ;; *-P*) echo relay = a;; *) ` + dnssec + `;; esac`, err: `postconf: not understood: "relay = a"`},
		// Before 2.11 there was neither the setting nor "-P".
		{name: "old", script: `case "$*" in *-P*) exit 1;; *) echo mail_version = 2.10.1; echo smtp_host_lookup = dns;; esac`,
			want: Detected{Why: "main.cf: smtp_dns_support_level is unknown to this release"}},
		{name: "snapshot", script: `case "$*" in *-M*) ;; *-P*) ;; *) echo mail_version = 3.11-20250101; echo smtp_dns_support_level = dnssec; echo smtp_host_lookup = dns;; esac`,
			want: Detected{DNSSEC: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "postconf"), "#!/bin/sh\n"+c.script+"\n", 0o700)
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			got, err := Detect(t.Context(), "")
			if got != c.want || err == nil != (c.err == "") || err != nil && err.Error() != c.err {
				t.Errorf("got  %+v, %v\nwant %+v, %v", got, err, c.want, c.err)
			}
			if want := strings.Contains(c.err, "not understood"); errors.Is(err, ErrUnexpectedOutput) != want {
				t.Errorf("%v is ErrUnexpectedOutput: %v", err, !want)
			}
		})
	}
}

// TestDetectHangs: the context ends a postconf that hangs, with its children.
func TestDetectHangs(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "postconf"), "#!/bin/sh\nsleep 20 &\nsleep 20\n", 0o700)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := Detect(ctx, ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want that the time is over", err)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestDetectShortPath: postconf is found where it usually is, although PATH
// does not say so.
func TestDetectShortPath(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	dir := t.TempDir()
	write(t, filepath.Join(dir, "main.cf"), "compatibility_level = 3.6\n", 0o600)
	write(t, filepath.Join(dir, "master.cf"), smtpService, 0o600)
	if got, err := Detect(t.Context(), dir); err != nil || got.Why == "" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestDetectRelease: the release is that of the programs, whatever main.cf says
// and even if there is none.
func TestDetectRelease(t *testing.T) {
	out, err := exec.Command("postconf", "-dh", "mail_version").Output()
	if err != nil {
		t.Fatalf("this test needs postconf: %v", err)
	}
	for _, main := range []string{"", "mail_version = 3.99\n", "nonsense\n"} {
		dir := t.TempDir()
		if main != "" {
			write(t, filepath.Join(dir, "main.cf"), main, 0o600)
		}
		if got, err := DetectRelease(t.Context(), dir); err != nil || got != strings.TrimSpace(string(out)) {
			t.Errorf("main.cf %q: %q, %v, want %s", main, got, err, out)
		}
	}
	for script, want := range map[string]string{
		"":                                    "postconf: not understood",
		"echo mail_version = sendmail":        `postconf: not understood: "mail_version = sendmail"`,
		"echo mail_name = 3.7.11":             `postconf: not understood: "mail_name = 3.7.11"`,
		"echo postconf: fatal: x >&2; exit 1": "postconf: fatal: x",
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "postconf"), "#!/bin/sh\n"+script+"\n", 0o700)
		t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
		if got, err := DetectRelease(t.Context(), ""); got != "" || err == nil || err.Error() != want {
			t.Errorf("%s: %q, %v, want %s", script, got, err, want)
		}
	}
}

func write(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	// postconf waits until a file that was just written is two seconds old, since
	// it may not be complete.
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, past, past); err != nil {
		t.Fatal(err)
	}
}
