package doctor

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"stsmap/config"
	"stsmap/postfix/postconf"
	"stsmap/resolver"
	"stsmap/stsfetch"
)

// TestChecks: IDs are in order and there is no gap, since people and scripts know them.
func TestChecks(t *testing.T) {
	for i, c := range Checks() {
		if want := "LOC-" + string([]byte{'0' + byte((i+1)/10), '0' + byte((i+1)%10)}); c.ID != want || c.Title == "" {
			t.Errorf("check %d is %s: %q", i+1, c.ID, c.Title)
		}
	}
}

// TestHanging: whatever hangs, doctor ends, and each check has a result. Here nothing answers: not the daemon at its
// socket, not the control socket, not DNS, not postconf.
func TestHanging(t *testing.T) {
	dir := t.TempDir()
	silent := func(network, address string) string {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l.Addr().String()
	}
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { packets.Close() })
	cfg := config.Default()
	cfg.Listen = []string{silent("tcp", "127.0.0.1:0")}
	cfg.Admin.Socket = silent("unix", filepath.Join(dir, "control.sock"))
	cfg.DNS.Servers = []string{packets.LocalAddr().String()}
	cfg.Cache.Store = "bolt:" + filepath.Join(dir, "cache.db")
	script := "#!/bin/sh\nexec sleep 1000\n"
	if err := os.WriteFile(filepath.Join(dir, "postconf"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	r, err := resolver.New(resolver.Config{Servers: cfg.DNS.Servers, Timeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	f, err := stsfetch.New(stsfetch.Config{Resolver: r})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	found := Examine(ctx, Config{Settings: &cfg, Resolver: r, Fetcher: f, Program: "/bin/false", Domain: "example.com"})
	for _, c := range Checks() {
		i := slices.IndexFunc(found, func(f Result) bool { return f.ID == c.ID })
		if i < 0 {
			t.Errorf("%s has no finding", c.ID)
		}
	}
	for id, want := range map[string]string{"LOC-01": "it takes too long", "LOC-03": "postconf: context deadline exceeded", "LOC-07": "timeout"} {
		if !slices.ContainsFunc(found, func(f Result) bool { return f.ID == id && f.Severity == Fail && strings.Contains(f.Seen, want) }) {
			t.Errorf("%s does not say %q: %v", id, want, found)
		}
	}
}

// TestBefore compares releases.
func TestBefore(t *testing.T) {
	for _, c := range []struct {
		release string
		numbers []int
		want    bool
	}{
		{"3.3.22", []int{3, 4}, true},
		{"3.4.0", []int{3, 4}, false},
		{"3.10.4", []int{3, 10, 5}, true},
		{"3.10.5", []int{3, 10, 5}, false},
		{"3.9.9", []int{3, 10, 5}, true},
		{"3.11-RC1", []int{3, 10, 5}, false},
		{"3.12-20260821", []int{3, 10, 5}, false},
		{"next", []int{3, 4}, false},
	} {
		if got := before(c.release, c.numbers...); got != c.want {
			t.Errorf("%s before %v: %t", c.release, c.numbers, got)
		}
	}
}

// TestSameAddress: what leads to the same socket, in the words of Postfix and of stsmap.
func TestSameAddress(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"127.0.0.1:8461", "127.0.0.1:8461", true},
		{"127.0.0.1:8461", "localhost:8461", true},
		{"127.0.0.1:8461", "127.0.0.1:8642", false},
		{"127.0.0.1:8461", "192.0.2.1:8461", false},
		{"unix:/var/spool/postfix/stsmap/map.sock", "unix:/var/spool/postfix/stsmap/map.sock", true},
		{"unix:/var/spool/postfix/stsmap/map.sock", "unix:/stsmap/map.sock", true},
		{"unix:/var/spool/postfix/stsmap/map.sock", "unix:/run/stsmap/map.sock", false},
		{"unix:/run/stsmap/map.sock", "127.0.0.1:8461", false},
	} {
		if got := sameAddress(c.a, c.b); got != c.want {
			t.Errorf("%s and %s: %t", c.a, c.b, got)
		}
	}
}

// TestGrant: the first part of a path that is closed is opened, and no other.
func TestGrant(t *testing.T) {
	dir := t.TempDir()
	for d := dir; d != "/"; d = filepath.Dir(d) {
		if info, err := os.Stat(d); err != nil || info.Mode().Perm()&1 == 0 {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	sock := filepath.Join(dir, "in", "side", "map.sock")
	if err := os.MkdirAll(filepath.Dir(sock), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	who := account{"postfix", 4711, 4712}
	for _, c := range []struct {
		path string
		mode os.FileMode
		want []string
	}{
		{sock, 0o666, nil},
		{sock, 0o644, []string{"chgrp postfix " + sock, "chmod g+rw " + sock}},
		{filepath.Dir(sock), 0o700, []string{"chgrp postfix " + filepath.Dir(sock), "chmod g+x " + filepath.Dir(sock)}},
		{filepath.Dir(filepath.Dir(sock)), 0o750, []string{"chgrp postfix " + dir + "/in", "chmod g+x " + dir + "/in"}},
	} {
		for p, mode := range map[string]os.FileMode{sock: 0o666, filepath.Dir(sock): 0o755, filepath.Dir(filepath.Dir(sock)): 0o755} {
			if p == c.path {
				mode = c.mode
			}
			if err := os.Chmod(p, mode); err != nil {
				t.Fatal(err)
			}
		}
		if got := grant(sock, who); !slices.Equal(got, c.want) {
			t.Errorf("%s with %v: %q", c.path, c.mode, got)
		}
	}
	info, err := os.Stat(sock)
	if err != nil {
		t.Fatal(err)
	}
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	if !may(info, account{uid: owner, gid: 4712}, 6) || !may(info, account{}, 7) {
		t.Error("the owner, or root, may not what he may")
	}
}

// TestCommands: what is pasted into a shell is one word where it has to be.
func TestCommands(t *testing.T) {
	for text, want := range map[string]string{
		"/var/spool/postfix": "/var/spool/postfix",
		"a b":                "'a b'",
		"it's":               `'it'\''s'`,
		"$(reboot)":          "'$(reboot)'",
		"":                   "''",
	} {
		if got := quoted(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	s := &postconf.Setup{Directory: "/etc/postfix out"}
	got := set(s, cohort{inherits: true, own: []string{"relay/unix"}}, "p", "v")
	want := []string{"postconf -c '/etc/postfix out' -e 'p = v'", "postconf -c '/etc/postfix out' -P relay/unix/p=v", "postfix -c '/etc/postfix out' reload"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestPrintable: nothing of a finding acts upon a terminal, and a line of a fix stays one.
func TestPrintable(t *testing.T) {
	f := warn("\x1b[2J%s", strings.Repeat("x", 3000)).because("a\nb").fix("c\x07", "d")
	f.finish("LOC-01")
	if strings.ContainsAny(f.Seen+f.Why, "\x1b\n") || len(f.Seen) > 2100 || f.Why != `a\nb` || f.Fix != `c\a`+"\nd" || f.Who != "you" {
		t.Errorf("%+.100v", f)
	}
}

// TestReleases: the severity for each kind of release, also for those that no machine of the tests has.
func TestReleases(t *testing.T) {
	cfg := config.Default()
	for release, want := range map[string]Severity{"3.3.22": Fail, "3.4.0": Info, "3.9.9": Info, "3.10.4": Info, "3.10.5": OK, "3.12-20260821": OK, "4.0.0": OK} {
		s := &postconf.Setup{Release: release, Services: []postconf.Service{{Name: "smtp/unix", Program: "smtp"}}}
		e := &exam{Config: Config{Settings: &cfg}, setups: []*postconf.Setup{s}}
		found := checkRelease(t.Context(), e)
		if len(found) != 1 || found[0].Severity != want || !strings.Contains(found[0].Seen, "Postfix "+release) {
			t.Errorf("%s: %v", release, found)
		}
	}
}
