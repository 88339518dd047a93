package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"stsmap/internal/fakenet"
)

// TestMain makes the test binary be stsmap when it is called so.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"stsmap": main})
}

// TestScripts runs testdata/script. Beside the commands of testscript there are
//
//	exits CODE PROGRAM ARGS…      like exec, for an exact exit code
//	world FILE                    a small internet (internal/fakenet) with a
//	                              proxy into it; sets $DNS and $PROXY, and
//	                              writes ca.pem. Again: another description
//	unworld                       ends it: nothing answers any more
//	daemon NAME ARGS…             stsmap serve ARGS in the background, its
//	                              output in NAME.out and NAME.log
//	await FILE REGEXP [N]         until FILE has N matches; $MATCH is the first
//	                              group of the last
//	signal NAME HUP|TERM|INT      to a daemon
//	ended NAME CODE               waits until a daemon has ended
//	stale PATH                    a UNIX socket without a listener
//	unused NAME                   an address without a listener, as $NAME
//	queries N NAME TYPE           DNS questions so far
//	get FILE STATUS URL [FIELD]   an HTTP request, with a header field, whose answer becomes FILE
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		// A daemon that serves where it should have refused to start ends the
		// script, instead of keeping it waiting.
		Deadline: time.Now().Add(3 * time.Minute),
		Setup: func(env *testscript.Env) error {
			s := &stage{daemons: make(map[string]*exec.Cmd)}
			env.Values[stageKey{}] = s
			env.Defer(s.close)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": cmdExits, "world": cmdWorld, "unworld": cmdUnworld, "daemon": cmdDaemon, "await": cmdAwait,
			"signal": cmdSignal, "ended": cmdEnded, "stale": cmdStale, "unused": cmdUnused, "queries": cmdQueries,
			"get": cmdGet,
		},
	})
}

// A stage is what one script has set up.
type stage struct {
	net     *fakenet.Net
	proxy   net.Listener
	running sync.WaitGroup
	daemons map[string]*exec.Cmd
}

type stageKey struct{}

func stageOf(ts *testscript.TestScript) *stage { return ts.Value(stageKey{}).(*stage) }

func (s *stage) close() {
	for _, d := range s.daemons {
		_ = d.Process.Kill()
		_ = d.Wait()
	}
	s.closeWorld()
}

func (s *stage) closeWorld() {
	if s.net != nil {
		s.proxy.Close()
		s.net.Close()
		s.running.Wait()
	}
	s.net = nil
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if err != nil || neg {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func cmdWorld(ts *testscript.TestScript, _ bool, args []string) {
	s := stageOf(ts)
	description := "\n" + ts.ReadFile(args[0])
	// Within a script, which is an archive itself, markers have a > before.
	description = strings.ReplaceAll(description, "\n>-- ", "\n-- ")
	if s.net != nil {
		ts.Check(s.net.Update(description))
		return
	}
	var err error
	s.net, err = fakenet.Start(description, fakenet.Options{})
	ts.Check(err)
	s.proxy, err = net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	s.running.Go(func() { s.net.ServeProxy(s.proxy) })
	ts.Setenv("DNS", s.net.DNSAddr())
	ts.Setenv("PROXY", "http://"+s.proxy.Addr().String())
	ts.Check(os.WriteFile(ts.MkAbs("ca.pem"), s.net.CAPEM(), 0o644))
}

func cmdUnworld(ts *testscript.TestScript, _ bool, _ []string) { stageOf(ts).closeWorld() }

func cmdQueries(ts *testscript.TestScript, _ bool, args []string) {
	if got := strconv.Itoa(stageOf(ts).net.Queries(args[1], args[2])); got != args[0] {
		ts.Fatalf("%s questions for %s %s, want %s", got, args[1], args[2], args[0])
	}
}

func cmdGet(ts *testscript.TestScript, _ bool, args []string) {
	r, err := http.NewRequest(http.MethodGet, args[2], nil)
	ts.Check(err)
	if len(args) > 3 {
		name, value, _ := strings.Cut(args[3], ": ")
		r.Header.Set(name, value)
		if name == "Host" {
			r.Host = value
		}
	}
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	ts.Check(err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), body, 0o644))
	if got := strconv.Itoa(answer.StatusCode); got != args[1] {
		ts.Fatalf("status %s, want %s:\n%s", got, args[1], body)
	}
}

func cmdDaemon(ts *testscript.TestScript, _ bool, args []string) {
	name := args[0]
	var program string
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, "stsmap")); err == nil && program == "" {
			program = filepath.Join(dir, "stsmap")
		}
	}
	cmd := exec.Command(program, append([]string{"serve"}, args[1:]...)...)
	cmd.Dir = ts.MkAbs(".")
	for _, v := range []string{"PATH", "HOME", "TMPDIR", "GOCOVERDIR", "STSMAP_LISTEN", "STSMAP_DNS_SERVERS",
		"STSMAP_FETCH_PROXY", "STSMAP_FETCH_CA_FILE", "STSMAP_CACHE_STORE", "HTTPS_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "STSMAP_ADMIN_SOCKET", "STSMAP_CACHE_WARM", "TZ"} {
		if value := ts.Getenv(v); value != "" {
			cmd.Env = append(cmd.Env, v+"="+value)
		}
	}
	// Scripts run side by side, and few of them want this.
	cmd.Env = append(cmd.Env, "STSMAP_ADMIN_LISTEN="+ts.Getenv("STSMAP_ADMIN_LISTEN"))
	out, err := os.Create(ts.MkAbs(name + ".out"))
	ts.Check(err)
	defer out.Close()
	log, err := os.Create(ts.MkAbs(name + ".log"))
	ts.Check(err)
	defer log.Close()
	cmd.Stdout, cmd.Stderr = out, log
	ts.Check(cmd.Start())
	stageOf(ts).daemons[name] = cmd
}

func cmdAwait(ts *testscript.TestScript, _ bool, args []string) {
	re, err := regexp.Compile(`(?m)` + args[1])
	ts.Check(err)
	n := 1
	if len(args) > 2 {
		n, err = strconv.Atoi(args[2])
		ts.Check(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		text := ts.ReadFile(args[0])
		if m := re.FindAllStringSubmatch(text, -1); len(m) >= n {
			if last := m[len(m)-1]; len(last) > 1 {
				ts.Setenv("MATCH", last[1])
			}
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s never had %d of %s:\n%s", args[0], n, args[1], text)
		}
	}
}

func cmdSignal(ts *testscript.TestScript, _ bool, args []string) {
	signals := map[string]os.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM, "INT": syscall.SIGINT}
	sig, ok := signals[args[1]]
	if !ok {
		ts.Fatalf("unknown signal %s", args[1])
	}
	ts.Check(stageOf(ts).daemons[args[0]].Process.Signal(sig))
}

func cmdEnded(ts *testscript.TestScript, _ bool, args []string) {
	s := stageOf(ts)
	d := s.daemons[args[0]]
	// A daemon that does not end fails the test, and does not hang it.
	guard := time.AfterFunc(time.Minute, func() { _ = d.Process.Kill() })
	defer guard.Stop()
	err := d.Wait()
	delete(s.daemons, args[0])
	if got := fmt.Sprint(d.ProcessState.ExitCode()); got != args[1] {
		ts.Fatalf("%s: exit code %s (%v), want %s\n%s", args[0], got, err, args[1], ts.ReadFile(args[0]+".log"))
	}
}

func cmdStale(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: ts.MkAbs(args[0]), Net: "unix"})
	ts.Check(err)
	l.SetUnlinkOnClose(false)
	l.Close()
}

func cmdUnused(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], l.Addr().String())
	l.Close()
}
