package systemd

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"stsmap/config"
)

// A unit is the text of a unit file: the values of each setting by "Section.Name", in the order of the file.
type unit map[string][]string

// readUnit reads a unit as systemd.syntax(7) has it, as far as ours go. What is neither a section, a setting nor a
// comment fails the test, since systemd would only warn of it.
func readUnit(t *testing.T, name string) unit {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	u, section := make(unit), ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch key, value, found := strings.Cut(line, "="); {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]"):
			section = strings.Trim(line, "[]")
		case found && section != "":
			u[section+"."+key] = append(u[section+"."+key], value)
		default:
			t.Errorf("%s: %q is nothing", name, line)
		}
	}
	return u
}

// one returns the value of a setting that stands there once.
func (u unit) one(t *testing.T, key string) string {
	t.Helper()
	if len(u[key]) != 1 {
		t.Errorf("%s= stands there %d times: %q", key, len(u[key]), u[key])
		return ""
	}
	return u[key][0]
}

// has fails the test unless a setting has the one value.
func (u unit) has(t *testing.T, key, want string) {
	t.Helper()
	if got := u.one(t, key); got != want {
		t.Errorf("%s=%s, want %s", key, got, want)
	}
}

// units are the files that a package installs.
func units() []string {
	return []string{"stsmap.service", "stsmap.socket", "stsmap-postfix.socket", "stsmap-misconfigured.target"}
}

// TestUnitFiles: all units are known here, and name no unit of ours that there is not.
func TestUnitFiles(t *testing.T) {
	var found []string
	for _, pattern := range []string{"*.service", "*.socket", "*.target", "*.timer", "*.path"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, names...)
	}
	if slices.Sort(found); !slices.Equal(found, slices.Sorted(slices.Values(units()))) {
		t.Errorf("units are %q, and units() has %q", found, units())
	}
	for _, name := range units() {
		for key, values := range readUnit(t, name) {
			if strings.HasSuffix(key, ".Documentation") || strings.HasPrefix(key, "Service.Exec") {
				continue
			}
			for _, word := range strings.Fields(strings.Join(values, " ")) {
				ours := strings.HasPrefix(word, "stsmap") && filepath.Ext(word) != ""
				if ours && !slices.Contains(units(), word) {
					t.Errorf("%s: %s names %s, which there is not", name, key, word)
				}
			}
		}
	}
}

// TestSocketsAreDefaults: the socket units listen where the configuration says by default, in the order in which the
// service names them, so that stsmap query and healthcheck find the daemon.
func TestSocketsAreDefaults(t *testing.T) {
	service := readUnit(t, "stsmap.service")
	service.has(t, "Service.Sockets", "stsmap.socket stsmap-postfix.socket")
	service.has(t, "Install.Also", "stsmap.socket stsmap-postfix.socket")
	tcp, postfix := readUnit(t, "stsmap.socket"), readUnit(t, "stsmap-postfix.socket")
	if got := tcp["Socket.ListenStream"]; !slices.Equal(got, config.Default().Listen) {
		t.Errorf("stsmap.socket listens on %q, the configuration says %q", got, config.Default().Listen)
	}
	if host, _, err := net.SplitHostPort(tcp.one(t, "Socket.ListenStream")); err != nil || !net.ParseIP(host).IsLoopback() {
		t.Errorf("whoever is not on this machine could ask: %s, %v", host, err)
	}
	names := make(map[string]bool)
	for _, u := range []unit{tcp, postfix} {
		u.has(t, "Socket.Service", "stsmap.service")
		u.has(t, "Install.WantedBy", "sockets.target")
		u.has(t, "Socket.TriggerLimitIntervalSec", "0")
		names[u.one(t, "Socket.FileDescriptorName")] = true
		if len(u["Socket.Accept"]) > 0 {
			t.Error("Listeners takes sockets to listen on, and Accept= passes others")
		}
	}
	if len(names) != 2 {
		t.Errorf("descriptors cannot be told apart: %v", names)
	}
}

// TestPostfixSocket: the socket is in a directory of its own in the queue directory, which the unit does not make. It
// is open to the group of Postfix alone, and the unit starts without that group.
func TestPostfixSocket(t *testing.T) {
	u := readUnit(t, "stsmap-postfix.socket")
	path := u.one(t, "Socket.ListenStream")
	queue := filepath.Dir(filepath.Dir(path))
	u.has(t, "Unit.ConditionPathIsDirectory", queue)
	u.has(t, "Socket.SocketMode", "0660")
	u.has(t, "Socket.DirectoryMode", "0755")
	u.has(t, "Socket.RemoveOnStop", "yes")
	u.has(t, "Socket.ExecStartPost", "-/bin/chgrp postfix "+path)
	if len(u["Socket.SocketGroup"])+len(u["Socket.SocketUser"]) > 0 {
		t.Error("the unit fails where that group is missing")
	}
	for _, page := range []string{"../man/stsmap-postfix.7", "../README.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		relative, err := filepath.Rel(queue, path)
		if err != nil {
			t.Fatal(err)
		}
		if want := "socketmap:unix:" + relative + ":postfix"; !strings.Contains(string(text), want) {
			t.Errorf("%s does not say %s", page, want)
		}
	}
}

// TestServicePaths: the directories that systemd makes are those that the configuration names by default, and belong to
// the user that sysusers.conf makes.
func TestServicePaths(t *testing.T) {
	u := readUnit(t, "stsmap.service")
	d := config.Default()
	if want := "bolt:/var/lib/" + u.one(t, "Service.StateDirectory") + "/cache.db"; d.Cache.Store != want {
		t.Errorf("the store is %s, the unit makes room for %s", d.Cache.Store, want)
	}
	if want := "/run/" + u.one(t, "Service.RuntimeDirectory") + "/control.sock"; d.Admin.Socket != want {
		t.Errorf("the control socket is %s, the unit makes room for %s", d.Admin.Socket, want)
	}
	u.has(t, "Service.StateDirectoryMode", "0700")
	u.has(t, "Service.UMask", "0077")
	user := u.one(t, "Service.User")
	u.has(t, "Service.Group", user)
	text, err := os.ReadFile("sysusers.conf")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "\nu "+user+" - ") {
		t.Errorf("sysusers.conf does not make %s", user)
	}
	for _, page := range []string{"../man/stsmap.8", "../README.md", "../packaging/README.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), user) {
			t.Errorf("%s does not name the user %s", page, user)
		}
	}
}

// TestServiceProtocol: what this package speaks, the unit listens to, in words that systemd 252 knows.
func TestServiceProtocol(t *testing.T) {
	u := readUnit(t, "stsmap.service")
	u.has(t, "Service.Type", "notify")
	u.has(t, "Service.Restart", "on-failure")
	u.has(t, "Unit.StartLimitIntervalSec", "0")
	readUnit(t, "stsmap-misconfigured.target").has(t, "Unit.Conflicts", u.one(t, "Service.Sockets"))
	if limit, err := time.ParseDuration(u.one(t, "Service.WatchdogSec")); err != nil || limit < 10*time.Second {
		t.Errorf("the watchdog is %v, %v; a slow disk is no reason to be killed", limit, err)
	}
	if u["Unit.Wants"] != nil || u["Unit.Requires"] != nil {
		t.Error("the daemon needs nothing to start")
	}
}

// TestServiceMemory: Go begins to collect harder before the kernel begins to throttle, and that before it kills.
func TestServiceMemory(t *testing.T) {
	u := readUnit(t, "stsmap.service")
	soft, found := strings.CutPrefix(u.one(t, "Service.Environment"), "GOMEMLIMIT=")
	if !found || !strings.HasSuffix(soft, "MiB") {
		t.Fatalf("no GOMEMLIMIT: %q", soft)
	}
	var sizes []int
	for _, s := range []string{strings.TrimSuffix(soft, "iB"), u.one(t, "Service.MemoryHigh"), u.one(t, "Service.MemoryMax")} {
		n, err := strconv.Atoi(strings.TrimSuffix(s, "M"))
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, n)
	}
	if !slices.IsSorted(sizes) || sizes[0] == sizes[1] || sizes[1] == sizes[2] {
		t.Errorf("GOMEMLIMIT, MemoryHigh and MemoryMax are %v", sizes)
	}
}
