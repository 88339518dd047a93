package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/rogpeppe/go-internal/txtar"

	"stsmap/doctor"
	"stsmap/e2e/site"
	"stsmap/socketmap"
)

// updateVariable has the findings of the cases written instead of compared.
const updateVariable = "E2E_UPDATE"

// TestDoctor has "stsmap doctor" look at a real Postfix, Unbound and daemon that are broken in one way after the other.
// Each file below doctor is a case, and doctor/README.md says what it can have. Each check has to be seen to find
// something, and to find nothing.
func TestDoctor(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("doctor", "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*hang)
	defer cancel()
	c := newDoctorRun(t, ctx)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { c.runCase(t, file) })
	}
	if t.Failed() || c.cases < len(files) {
		return // of a part of the cases nothing can be said
	}
	for _, check := range doctor.Checks() {
		if !c.problem[check.ID] || !c.clean[check.ID] {
			t.Errorf("%s: there is a case with a problem: %t, and one without: %t", check.ID, c.problem[check.ID], c.clean[check.ID])
		}
	}
}

// A doctorRun is a site in which the cases run, one after the other.
type doctorRun struct {
	site    *site.Site
	home    func(ctx context.Context, suite string) (string, error)
	binary  string
	cases   int
	problem map[string]bool // the checks that have found something in some case
	clean   map[string]bool // those that have found nothing in some case
}

func newDoctorRun(t *testing.T, ctx context.Context) *doctorRun {
	t.Helper()
	// Here systemd does not run, whatever it does around this namespace.
	if _, err := os.Stat("/run/systemd"); err == nil {
		if err := syscall.Mount("tmpfs", "/run/systemd", "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
	}
	binary, err := site.Build(ctx)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join("doctor", "site", "world.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := site.Start(ctx, string(text), binary, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if text, err = os.ReadFile(filepath.Join("doctor", "site", "zones.txtar")); err != nil {
		t.Fatal(err)
	}
	zones, err := parseZones(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.ServeZones(ctx, zones), s.Knot.Break("dnssec-failed.org", true), s.StartDaemon(ctx, "")); err != nil {
		t.Fatal(err)
	}
	return &doctorRun{site: s, home: roots(s), binary: binary, problem: make(map[string]bool), clean: make(map[string]bool)}
}

// A doctorCase is one case.
type doctorCase struct {
	*doctorRun
	t    *testing.T
	conf string // the configuration directory of its Postfix
	toml string // the configuration file of stsmap
	user string // the user that doctor runs as; empty: root
	args []string
	undo []func() error

	reloaded bool // the daemon has read something that holds no longer

	words *strings.Replacer // what is different each time
}

// runCase sets up a case, runs doctor, and compares its results with the case.
func (c *doctorRun) runCase(t *testing.T, file string) {
	c.cases++
	archive, err := txtar.ParseFile(file)
	if err != nil || len(strings.TrimSpace(string(archive.Comment))) == 0 {
		t.Fatalf("says nothing of what it is: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	p := &doctorCase{doctorRun: c, t: t}
	defer p.undoAll()
	sections := make(map[string]string)
	var ids []string
	for _, f := range archive.Files {
		sections[f.Name] = string(f.Data)
		if strings.HasPrefix(f.Name, "LOC-") {
			ids = append(ids, f.Name)
		} else if !slices.Contains([]string{"main.cf", "master.cf", "stsmap.toml", "daemon.toml", "do"}, f.Name) {
			t.Fatalf("section that nobody reads: %s", f.Name)
		}
	}
	if len(ids) == 0 {
		t.Fatal("no check is looked at")
	}
	p.prepare(ctx, sections)
	found := p.runDoctor(ctx, ids)
	for i, f := range archive.Files {
		if !strings.HasPrefix(f.Name, "LOC-") {
			continue
		}
		got, bad := p.resultOf(found, f.Name)
		if bad {
			c.problem[f.Name] = true
		} else {
			c.clean[f.Name] = true
		}
		if os.Getenv(updateVariable) != "" {
			archive.Files[i].Data = []byte(got)
		} else if got != string(f.Data) {
			t.Errorf("%s:\n%s\nwant:\n%s", f.Name, got, f.Data)
		}
	}
	if os.Getenv(updateVariable) != "" {
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p.applyFixes(ctx, ids, found)
}

// applyFixes runs the commands of the fixes, as far as they change Postfix's configuration and permissions, and runs doctor
// again, which must not find the fixed problems.
func (p *doctorCase) applyFixes(ctx context.Context, ids []string, found []doctor.Result) {
	p.t.Helper()
	fixed := make(map[string]bool) // by what was seen
	for _, f := range found {
		if f.Severity < doctor.Warn {
			continue
		}
		for line := range strings.Lines(f.Fix) {
			line = strings.TrimSpace(line)
			switch name, _, _ := strings.Cut(line, " "); name {
			case "postconf", "chgrp", "chmod", "chown", "install":
				if strings.Contains(line, " -o ") {
					continue // for a user that is on no machine of these
				}
				p.run("sh", "-c", line)
				fixed[f.Seen] = true
			}
		}
	}
	if len(fixed) == 0 {
		return
	}
	p.must(age(p.conf))
	for _, f := range p.runDoctor(ctx, ids) {
		if f.Severity >= doctor.Warn && fixed[f.Seen] {
			p.t.Errorf("%s is still there after %q: %s", f.ID, f.Fix, f.Seen)
		}
	}
}

// prepare makes the configurations, and does the steps of the case.
func (p *doctorCase) prepare(ctx context.Context, sections map[string]string) {
	p.t.Helper()
	dir, err := os.MkdirTemp(site.Dir(), "case-") // where a root can see it
	p.must(err)
	p.must(os.Chmod(dir, 0o755)) // the user of Postfix reads main.cf
	p.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p.conf = filepath.Join(dir, "postfix")
	p.must(os.Mkdir(p.conf, 0o755))
	for _, name := range []string{"main.cf", "master.cf"} {
		text, err := os.ReadFile(filepath.Join(p.site.Postfix.Conf, name))
		p.must(err)
		p.must(os.WriteFile(filepath.Join(p.conf, name), text, 0o644))
	}
	p.stsmap("cache", "forget", "--all")
	if text, ok := sections["daemon.toml"]; ok {
		p.must(p.site.StartDaemon(ctx, text))
		p.addUndo(func() error { return p.site.StartDaemon(context.WithoutCancel(ctx), "") })
	}
	p.words = strings.NewReplacer("$CONF", p.conf, "$JAIL", p.site.Postfix.Jail, "$DIR", filepath.Dir(p.site.Daemon.Conf()),
		"$TOML", p.site.Daemon.Conf(), "$SITE", filepath.Dir(p.site.Postfix.Conf))
	for line := range strings.Lines(sections["main.cf"]) {
		p.run("postconf", "-c", p.conf, "-e", p.words.Replace(strings.TrimSpace(line)))
	}
	for line := range strings.Lines(sections["master.cf"]) {
		option, rest, _ := strings.Cut(strings.TrimSpace(p.words.Replace(line)), " ")
		p.run("postconf", "-c", p.conf, option, rest)
	}
	for line := range strings.Lines(sections["do"]) {
		verb, rest, _ := strings.Cut(strings.TrimSpace(p.words.Replace(line)), " ")
		p.do(ctx, verb, rest)
	}
	p.toml = filepath.Join(dir, "stsmap.toml")
	p.must(os.WriteFile(p.toml, []byte(p.settings(sections["stsmap.toml"])), 0o644))
	p.must(age(p.conf))
}

// age makes a main.cf look old: every program of Postfix would wait until it is two seconds old.
func age(conf string) error {
	then := time.Now().Add(-time.Minute)
	if err := os.Chtimes(filepath.Join(conf, "main.cf"), then, then); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// settings is the configuration file of the daemon for the Postfix of the case, with further keys in the place of those
// that it has.
func (p *doctorCase) settings(extra string) string {
	text, err := os.ReadFile(p.site.Daemon.Conf())
	p.must(err)
	if extra = p.words.Replace(extra); !strings.Contains(extra, "postfix.config_directory") {
		extra += fmt.Sprintf("postfix.config_directory = %q\n", p.conf)
	}
	var out strings.Builder
	for line := range strings.Lines(string(text)) {
		key, _, _ := strings.Cut(line, " ")
		if !strings.Contains("\n"+extra, "\n"+key+" ") {
			out.WriteString(line)
		}
	}
	return out.String() + extra
}

// runDoctor runs doctor, and returns what it found.
func (p *doctorCase) runDoctor(ctx context.Context, ids []string) []doctor.Result {
	p.t.Helper()
	cmd := exec.CommandContext(ctx, p.binary, slices.Concat([]string{"doctor", "--json", "--config", p.toml}, p.args, ids)...)
	cmd.Env = []string{"PATH=" + p.site.Postfix.Bin + ":" + os.Getenv("PATH")}
	cmd.Dir = "/"
	if p.user != "" {
		who, err := user.Lookup(p.user)
		p.must(err)
		uid, _ := strconv.ParseUint(who.Uid, 10, 32)
		gid, _ := strconv.ParseUint(who.Gid, 10, 32)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	var said struct {
		Version, Failures, Warnings int
		Findings                    []struct{ ID, Severity, Seen, Why, Who, Fix string }
	}
	if jsonErr := json.Unmarshal(out, &said); jsonErr != nil || said.Version != 1 || complaint.Len() > 0 {
		p.t.Fatalf("%v, %v: %s%s", err, jsonErr, out, complaint.String())
	}
	want := 0
	if said.Failures+said.Warnings > 0 {
		want = 1
	}
	if got := cmd.ProcessState.ExitCode(); got != want {
		p.t.Errorf("exit code %d, with %d failures and %d warnings", got, said.Failures, said.Warnings)
	}
	severities := map[string]doctor.Severity{"skip": doctor.Skip, "ok": doctor.OK, "info": doctor.Info, "warn": doctor.Warn, "fail": doctor.Fail}
	var found []doctor.Result
	for _, f := range said.Findings {
		s, known := severities[f.Severity]
		if !known || (f.Who == "you") != (s >= doctor.Warn) || s >= doctor.Warn && (f.Why == "" || f.Fix == "") {
			p.t.Errorf("%s is %s, to be acted upon by %s, because %q: %q", f.ID, f.Severity, f.Who, f.Why, f.Fix)
		}
		found = append(found, doctor.Result{ID: f.ID, Severity: s, Seen: f.Seen, Why: f.Why, Fix: f.Fix})
	}
	return found
}

// resultOf returns the results of a check, with words in the place of what differs each time, and whether one is a problem.
func (p *doctorCase) resultOf(found []doctor.Result, id string) (text string, bad bool) {
	var b strings.Builder
	for _, f := range found {
		// Whether the kernel of this machine knows the time is nothing that a test can arrange.
		if f.ID != id || strings.HasPrefix(f.Seen, "clock: ") {
			continue
		}
		bad = bad || f.Severity >= doctor.Warn
		fmt.Fprintf(&b, "%s %s\n", f.Severity, f.Seen)
		if f.Why != "" {
			fmt.Fprintf(&b, "    %s\n", f.Why)
		}
		for line := range strings.Lines(f.Fix) {
			fmt.Fprintf(&b, "    $ %s\n", strings.TrimRight(line, "\n"))
		}
	}
	if b.Len() == 0 {
		p.t.Errorf("%s has no finding", id)
	}
	text = strings.NewReplacer(p.toml, "$MYTOML", p.conf, "$CONF", p.site.Postfix.Jail, "$JAIL",
		strings.TrimPrefix(p.site.Postfix.Jail, "/"), "$JAIL", filepath.Dir(p.site.Daemon.Conf()), "$DIR",
		filepath.Dir(p.site.Postfix.Conf), "$SITE").Replace(b.String())
	for _, r := range []struct{ pattern, word string }{
		{`stsmap \d+\.\d+\.\d+\S*`, "stsmap $VERSION"},
		{`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`, "$$TIME"},
		{`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+`, "$$TIME"},
		{`\((\d+[hms])+\)`, "($$SPAN)"},
		{`learned (\d+[hms])+ ago`, "learned $$SPAN ago"},
		{`\d+ KiB`, "$$N KiB"},
		{`kill -HUP \d+`, "kill -HUP $$PID"},
		{`-o _?stsmap `, "-o stsmap "},
		{`\b3\.(7|11)\.\d+`, "3.$1.x"},
	} {
		text = regexp.MustCompile(r.pattern).ReplaceAllString(text, strings.Replace(r.word, "$VERSION", "$$VERSION", 1))
	}
	return text, bad
}

// do does one step; doctor/README.md says what they are.
func (p *doctorCase) do(ctx context.Context, verb, rest string) {
	p.t.Helper()
	first, second, _ := strings.Cut(rest, " ")
	switch verb {
	case "query":
		_, err := lookup(ctx, rest)
		p.must(err)
	case "daemon":
		p.daemon(ctx, rest)
	case "chmod", "chown":
		p.permit(verb, first, second)
	case "hide":
		p.must(os.Rename(rest, rest+".hidden"))
		p.addUndo(func() error { return os.Rename(rest+".hidden", rest) })
	case "copy":
		text, err := os.ReadFile(first)
		p.must(err)
		p.write(second, string(text))
	case "write":
		p.write(first, second+"\n")
	case "future":
		then := time.Now().AddDate(1, 0, 0)
		p.must(os.Chtimes(rest, then, then))
		p.addUndo(func() error { now := time.Now(); return os.Chtimes(rest, now, now) })
	case "listen":
		p.listen(first, second)
	case "dns":
		p.plainDNS(rest)
	case "unbound":
		p.must(p.site.Validate(ctx, rest == "validate"))
		p.addUndo(func() error { return p.site.Validate(context.WithoutCancel(ctx), true) })
	case "unmend", "mend":
		p.must(errors.Join(p.site.Knot.Break(rest, verb == "unmend"), p.site.Unbound.Flush()))
		p.addUndo(func() error { return errors.Join(p.site.Knot.Break(rest, verb == "mend"), p.site.Unbound.Flush()) })
	case "world":
		p.edit(rest)
	case "postfix":
		dir, err := p.home(ctx, rest)
		p.must(err)
		p.must(p.site.Postfix.Answer(dir))
		p.addUndo(p.site.Postfix.Unmute)
	case "mute":
		p.must(p.site.Postfix.Mute())
		p.addUndo(p.site.Postfix.Unmute)
	case "await":
		p.await(ctx, rest)
	case "undo":
		p.must(p.undo[0]())
		p.undo = p.undo[1:]
	case "postconf":
		p.run("postconf", "-c", first, "-e", second)
		p.must(age(first))
	case "as":
		p.user = rest
	case "args":
		p.args = strings.Fields(rest)
	default:
		p.t.Fatalf("no such step: %s", verb)
	}
}

func (p *doctorCase) daemon(ctx context.Context, verb string) {
	p.t.Helper()
	d := p.site.Daemon
	after := context.WithoutCancel(ctx)
	switch verb {
	case "stop":
		p.must(d.Stop(ctx))
		p.addUndo(func() error { return d.Start(after) })
	case "remove":
		p.must(errors.Join(d.Stop(ctx), d.Close()))
		p.addUndo(func() error { return p.site.StartDaemon(after, "") })
	case "reload":
		p.must(d.Reload(ctx))
		p.reloaded = true
	default:
		p.t.Fatalf("no such thing can be done to a daemon: %s", verb)
	}
}

// permit changes who may do what with a file.
func (p *doctorCase) permit(verb, how, path string) {
	p.t.Helper()
	info, err := os.Stat(path)
	p.must(err)
	stat := info.Sys().(*syscall.Stat_t)
	p.addUndo(func() error {
		return errors.Join(os.Chown(path, int(stat.Uid), int(stat.Gid)), os.Chmod(path, info.Mode().Perm()))
	})
	p.run(verb, how, path)
}

// write makes a file with directories above it.
func (p *doctorCase) write(path, text string) {
	p.t.Helper()
	p.must(os.MkdirAll(filepath.Dir(path), 0o755))
	before, err := os.ReadFile(path)
	p.must(os.WriteFile(path, []byte(text), 0o644))
	p.addUndo(func() error {
		if err != nil {
			return os.Remove(path)
		}
		return os.WriteFile(path, before, 0o644)
	})
}

// listen answers all lookups at an address with the same.
func (p *doctorCase) listen(address, answer string) {
	p.t.Helper()
	l, err := net.Listen("tcp", address)
	p.must(err)
	server := &socketmap.Server{Handler: socketmap.HandlerFunc(func(context.Context, socketmap.Request) socketmap.Reply {
		return socketmap.Reply{Status: socketmap.OK, Text: answer}
	})}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	p.addUndo(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), hang)
		defer cancel()
		err := server.Shutdown(ctx)
		if end := <-ended; !errors.Is(end, socketmap.ErrServerClosed) {
			err = errors.Join(err, end)
		}
		return err
	})
}

// plainDNS answers all questions at an address with nothing, over UDP alone, as a server of old does that does not know EDNS.
func (p *doctorCase) plainDNS(address string) {
	p.t.Helper()
	conn, err := net.ListenPacket("udp", address)
	p.must(err)
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		_ = w.WriteMsg(new(dns.Msg).SetReply(q))
	})}
	started, ended := make(chan struct{}), make(chan error, 1)
	server.NotifyStartedFunc = func() { close(started) }
	go func() { ended <- server.ActivateAndServe() }()
	<-started
	p.addUndo(func() error { return errors.Join(server.Shutdown(), <-ended) })
}

// edit replaces a text in the world.
func (p *doctorCase) edit(rest string) {
	p.t.Helper()
	text, err := os.ReadFile(filepath.Join("doctor", "site", "world.txtar"))
	p.must(err)
	from, to, ok := strings.Cut(rest, " => ")
	if !ok || !strings.Contains(string(text), from) {
		p.t.Fatalf("the world has nothing of that kind: %s", rest)
	}
	p.must(p.site.Update(strings.ReplaceAll(string(text), from, to)))
	p.addUndo(func() error { return p.site.Update(string(text)) })
}

func (p *doctorCase) addUndo(undo func() error) { p.undo = append(p.undo, undo) }

// undoAll undoes everything, the last thing first.
func (p *doctorCase) undoAll() {
	for _, undo := range slices.Backward(p.undo) {
		if err := undo(); err != nil {
			p.t.Error(err)
		}
	}
	if p.reloaded {
		ctx, cancel := context.WithTimeout(context.Background(), hang)
		defer cancel()
		release, err := p.site.Postfix.Release()
		if err := errors.Join(err, p.site.Daemon.Reload(ctx)); err != nil {
			p.t.Error(err)
		}
		p.await(ctx, `"release":"`+release)
	}
}

// await waits until the daemon says of itself what is to be seen.
func (p *doctorCase) await(ctx context.Context, pattern string) {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	for {
		out := p.stsmap("status", "--json")
		if re.MatchString(out) {
			return
		}
		select {
		case <-ctx.Done():
			p.t.Fatalf("the status never has %s: %s", pattern, out)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// stsmap runs a command for the daemon, and returns what it prints.
func (p *doctorCase) stsmap(args ...string) string {
	p.t.Helper()
	out, err := exec.Command(p.binary, append(args, "--config", p.site.Daemon.Conf())...).Output()
	if err != nil {
		p.t.Fatalf("stsmap %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}

func (p *doctorCase) run(name string, args ...string) {
	p.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		p.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

func (p *doctorCase) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}
