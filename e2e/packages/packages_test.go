package packages

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// hang is the time after which a command is taken to hang; the longest compiles everything anew.
const hang = 8 * time.Minute

// top is the top of the tree.
const top = "../.."

// run runs a command at the top of the tree, and returns what it printed. Env is added to the environment.
func run(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	out, err := try(env, name, args...)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

func try(env []string, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = top
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// report appends to the file that E2E_REPORT names, if it names one.
func report(t *testing.T, text string) {
	t.Helper()
	t.Log(text)
	path := os.Getenv("E2E_REPORT")
	if path == "" {
		return
	}
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := fmt.Fprintln(out, text); err != nil {
		t.Fatal(err)
	}
}

// built returns a folder with all packages.
func built(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	run(t, []string{"DIST=" + dir}, "packaging/build.sh")
	return dir
}

// TestPackages: there is one of each format for each machine; built again from nothing, with another umask, time zone and
// locale, each is the same to the byte; and the linters have nothing to say that is not explained.
func TestPackages(t *testing.T) {
	dir := built(t)
	var names []string
	sizes := "\nsizes of packages:\n"
	for _, arch := range []string{"amd64", "arm64"} {
		for _, suffix := range []string{"apk", "deb", "pkg.tar.zst", "rpm", "tar.gz"} {
			found, err := filepath.Glob(filepath.Join(dir, "stsmap_*_"+arch+"."+suffix))
			if err != nil || len(found) != 1 {
				t.Fatalf("%s for %s: %q, %v", suffix, arch, found, err)
			}
			info, err := os.Stat(found[0])
			if err != nil {
				t.Fatal(err)
			}
			sizes += fmt.Sprintf("%8d  %s\n", info.Size(), info.Name())
			names = append(names, info.Name())
		}
	}
	report(t, sizes)

	again := t.TempDir()
	run(t, []string{"DIST=" + again, "ARCHES=" + runtime.GOARCH, "GOCACHE=" + t.TempDir(), "TZ=Asia/Tokyo", "LC_ALL=C.UTF-8"},
		"sh", "-c", "umask 077; packaging/build.sh")
	for _, name := range names {
		if !strings.Contains(name, "_"+runtime.GOARCH+".") {
			continue
		}
		one, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		two, err := os.ReadFile(filepath.Join(again, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(one, two) {
			t.Errorf("%s is another one when it is built again", name)
		}
	}

	for _, name := range names {
		path := filepath.Join(dir, name)
		var out string
		var err error
		switch {
		case strings.HasSuffix(name, ".deb"):
			out, err = try(nil, "lintian", "--allow-root", "--fail-on", "error,warning", path)
		case strings.HasSuffix(name, ".rpm"):
			out, err = try(nil, "rpmlint", "--config", "packaging/rpm/rpmlint.toml", path)
			if err == nil && !strings.Contains(out, " 0 errors, 0 warnings,") {
				err = fmt.Errorf("it has something to say")
			}
		default:
			continue
		}
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		report(t, fmt.Sprintf("lint %s: %s", name, cmp.Or(lastLine(out), "nothing to say")))
	}
}

// TestDebianSource: packaging/debian makes a package, of what is committed, with debhelper and without a network. That the Go there is
// not Debian's own is why dependencies are not checked.
func TestDebianSource(t *testing.T) {
	work := t.TempDir()
	source := filepath.Join(work, "stsmap")
	run(t, nil, "sh", "-c", `mkdir "$0" && git archive HEAD | tar -C "$0" -xf - && cp -R "$0/packaging/debian" "$0/debian"`, source)
	// Only the first package has to prove that it compiles from nothing (TestPackages).
	compiled := strings.TrimSpace(run(t, nil, "go", "env", "GOCACHE"))
	run(t, []string{"GOPROXY=off", "GOFLAGS=-mod=mod", "GOCACHE=" + compiled}, "sh", "-c", `cd "$0" && dpkg-buildpackage --no-check-builddeps --build=binary --unsigned-changes`, source)
	debs, err := filepath.Glob(filepath.Join(work, "stsmap_*_"+runtime.GOARCH+".deb"))
	if err != nil || len(debs) != 1 {
		t.Fatalf("packages are %q: %v", debs, err)
	}
	if out, err := try(nil, "lintian", "--allow-root", "--fail-on", "error,warning", debs[0]); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	// It has what ours has, but for what Debian's tools add or compress.
	has := files(run(t, nil, "dpkg", "--contents", debs[0]))
	dir := t.TempDir()
	run(t, []string{"DIST=" + dir, "ARCHES=" + runtime.GOARCH, "FORMATS=deb"}, "packaging/build.sh")
	ours, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(ours) != 1 {
		t.Fatalf("our package: %q, %v", ours, err)
	}
	for _, file := range files(run(t, nil, "dpkg", "--contents", ours[0])) {
		if !slices.Contains(has, file) && !strings.HasPrefix(file, "./usr/share/doc/") {
			t.Errorf("Debian's package lacks %s", file)
		}
	}
}

// files returns the files of what dpkg --contents prints.
func files(listing string) (names []string) {
	for line := range strings.Lines(listing) {
		fields := strings.Fields(line)
		if len(fields) == 6 && !strings.HasSuffix(fields[5], "/") {
			names = append(names, fields[5])
		}
	}
	return names
}

// TestImage: in a container without capabilities, without new privileges and with nothing writable but the volume, it
// serves clients from outside, is healthy, and keeps its cache over a restart.
func TestImage(t *testing.T) {
	store := t.TempDir()
	podman := func(args ...string) string {
		t.Helper()
		return run(t, nil, "podman", slices.Concat([]string{"--root", store + "/root", "--runroot", store + "/run", "--storage-driver", "vfs",
			"--cgroup-manager", "cgroupfs", "--runtime", "runc"}, args)...)
	}
	tool := filepath.Join(store, "podman")
	script := fmt.Sprintf("#!/bin/sh\nexec podman --root %[1]s/root --runroot %[1]s/run --storage-driver vfs --cgroup-manager cgroupfs \"$@\"\n", store)
	if err := os.WriteFile(tool, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, []string{"CONTAINER_ENGINE=" + tool}, "packaging/image.sh", "stsmap-e2e")
	t.Cleanup(func() {
		podman("rm", "--all", "--force")
		podman("rmi", "--all", "--force")
	})
	podman("run", "--detach", "--name", "one", "--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt", "no-new-privileges",
		"--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--publish", "127.0.0.1::8461", "--volume", "cache:/var/lib/stsmap",
		"stsmap-e2e")
	if user := podman("inspect", "--format", "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}}", "one"); !strings.Contains(user, "65532:65532 true") {
		t.Errorf("it runs as %s", user)
	}
	ask := func() {
		t.Helper()
		address := strings.TrimSpace(lastLine(podman("port", "one", "8461")))
		until(t, func() error {
			_, err := try(nil, "go", "run", "./cmd/stsmap", "healthcheck", "--server", address)
			return err
		})
		// It knows no DNS server, and says so of a name; a top-level domain has no policy, and needs no question.
		if out := run(t, nil, "go", "run", "./cmd/stsmap", "query", "--server", address, ".example"); !strings.HasPrefix(out, "NOTFOUND") {
			t.Errorf("a question from outside: %s", out)
		}
		podman("healthcheck", "run", "one")
	}
	ask()
	policy := `{"domain":"remembered.example","id":"1","policy":"version: STSv1\nmode: enforce\nmx: mx.remembered.example\nmax_age: 604800\n","fetched":"` +
		time.Now().UTC().Format(time.RFC3339) + `","expires":"` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + `"}` + "\n"
	run(t, nil, "sh", "-c", `file=$1; shift; printf '%s' "$0" | "$file" exec --interactive one /usr/bin/stsmap cache import -`, policy, tool)
	podman("restart", "one")
	ask()
	if out := podman("exec", "one", "/usr/bin/stsmap", "cache", "list"); !strings.Contains(out, "remembered.example") {
		t.Errorf("after a restart with the same volume it knows only: %s", out)
	}
	report(t, "container image: "+lastLine(podman("images", "--format", "{{.Size}}")))
}

// lastLine is the result of podman, which tells about its troubles before.
func lastLine(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}

// until waits for done to succeed.
func until(t *testing.T, done func() error) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		err := done()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// TestInstall: make install honours DESTDIR and PREFIX, in the units too, leaves a configuration that is there, and makes the
// user that they name.
func TestInstall(t *testing.T) {
	dir := t.TempDir()
	run(t, nil, "make", "bin/stsmap")
	install := func() { run(t, nil, "make", "install", "DESTDIR="+dir, "PREFIX=/usr/local") }
	install()
	conf := filepath.Join(dir, "etc/stsmap/stsmap.toml")
	if err := os.WriteFile(conf, []byte("# mine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	install()
	if text, err := os.ReadFile(conf); err != nil || string(text) != "# mine\n" {
		t.Errorf("the configuration is %q now: %v", text, err)
	}
	unit, err := os.ReadFile(filepath.Join(dir, "usr/local/lib/systemd/system/stsmap.service"))
	if err != nil || !strings.Contains(string(unit), "\nExecStart=/usr/local/bin/stsmap serve\n") || strings.Contains(string(unit), "/usr/bin/stsmap") {
		t.Errorf("the unit starts another program: %v", err)
	}
	for _, name := range []string{"passwd", "group"} {
		if err := os.WriteFile(filepath.Join(dir, "etc", name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run(t, nil, "systemd-sysusers", "--root="+dir, filepath.Join(dir, "usr/local/lib/sysusers.d/stsmap.conf"))
	if users, err := os.ReadFile(filepath.Join(dir, "etc/passwd")); err != nil || !strings.HasPrefix(string(users), "_stsmap:") {
		t.Errorf("users are %q: %v", users, err)
	}
	if out := run(t, nil, filepath.Join(dir, "usr/local/bin/stsmap"), "version"); !strings.HasPrefix(out, "stsmap ") {
		t.Errorf("what was installed says %s", out)
	}
}

// TestScripts: the shell can read every script that a package brings.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob(top + "/packaging/*/*")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, path := range scripts {
		switch folder := filepath.Base(filepath.Dir(path)); {
		case folder == "share" || folder == "debian" || filepath.Ext(path) == ".toml" || filepath.Base(path) == "lintian-overrides":
			continue
		}
		seen++
		if out, err := exec.Command("sh", "-n", path).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", path, err, out)
		}
	}
	if seen < 13 {
		t.Errorf("only %d scripts", seen)
	}
}
