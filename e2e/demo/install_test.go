package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// everything are the packages that e2e/install.sh asks for without arguments on a machine that has none.
const everything = "postfix unbound knot iproute2 redis-server redis-sentinel sqlite3 postgresql mandoc mmdebstrap debian-archive-keyring " +
	"systemd-container lintian rpmlint rpm dpkg-dev debhelper podman runc prometheus mtail chromium chromium-driver"

// TestInstall: e2e/install.sh asks for the packages of what it was given and lacks, and for no others. apt-get is a script
// that writes down its arguments, and whether services are kept from starting.
func TestInstall(t *testing.T) {
	for _, c := range []struct {
		name, args, have, user string
		asked                  string // of apt-get install; empty if it is not called
		fails                  string // part of the message; empty if it succeeds
	}{
		{name: "all", asked: everything},
		{name: "demo", args: "postfix unbound", asked: "postfix unbound"},
		{name: "one is there", args: "postfix unbound", have: "postfix postconf", asked: "unbound"},
		{name: "half of one is there", args: "postfix unbound", have: "postfix unbound unbound-control", asked: "postfix"},
		{name: "both are there", args: "postfix unbound", have: "postfix postconf unbound unbound-control"},
		{name: "unknown", args: "postfix sendmail", fails: "unknown name sendmail; must be one of: postfix unbound knot "},
		{name: "part of a name", args: "post", fails: "unknown name post;"},
		{name: "not root", args: "postfix unbound", user: "1000", fails: "sudo apt-get install --no-install-recommends postfix unbound\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			bin := filepath.Join(root, "usr/sbin")
			if err := os.MkdirAll(bin, 0o755); err != nil {
				t.Fatal(err)
			}
			if c.user == "" {
				c.user = "0"
			}
			command(t, bin, "apt-get", `test -x "$E2E_ROOT/usr/sbin/policy-rc.d" || echo unguarded >>"$E2E_ROOT/log"; echo "$@" >>"$E2E_ROOT/log"`)
			command(t, bin, "id", "echo "+c.user)
			command(t, bin, "debconf-set-selections", "while read -r line; do :; done")
			for _, name := range strings.Fields(c.have) {
				command(t, bin, name, "exit 1")
			}
			for _, name := range []string{"chmod", "rm", "ls", "tail"} {
				path, err := exec.LookPath(name)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
					t.Fatal(err)
				}
			}
			install := exec.Command("../install.sh", strings.Fields(c.args)...)
			install.Env = []string{"E2E_ROOT=" + root, "PATH=" + bin}
			out, err := install.CombinedOutput()
			if (err != nil) != (c.fails != "") || !strings.Contains(string(out), c.fails) {
				t.Errorf("%v: %s\nwant %q", err, out, c.fails)
			}
			want := ""
			if c.asked != "" {
				want = "update -qq\ninstall -qq -y --no-install-recommends " + c.asked + "\n"
			}
			if asked, _ := os.ReadFile(filepath.Join(root, "log")); string(asked) != want {
				t.Errorf("apt-get got\n%swant\n%s", asked, want)
			}
			if _, err := os.Lstat(filepath.Join(bin, "policy-rc.d")); err == nil {
				t.Error("policy-rc.d is left behind")
			}
		})
	}
}

// TestMakeDemo: make demo asks for what the demonstration uses, and nothing else.
func TestMakeDemo(t *testing.T) {
	out, err := exec.Command("make", "-C", "../..", "-n", "demo").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\ne2e/install.sh postfix unbound\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

// command writes a program into dir.
func command(t *testing.T, dir, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}
