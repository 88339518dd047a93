// Bench prints the figures that stsmap promises, next to their targets and to what the best other program of its kind
// reached on a machine like the one they were set on. All are measured in one run: rates as a share of what a bare
// echo server does in the same minutes, cold lookups beside those of a client that does nothing else, first contacts
// under attack beside undisturbed ones. Only refreshes are counted on a clock of their own, for an hour of them.
//
// It asserts nothing, and its exit status says only whether everything could be measured: a figure depends on the
// machine and on who else uses it. It does not time parts of the program, either; the packages have benchmarks for
// that.
//
//	go run ./internal/bench [-quick] [-only cached,cold,…] [-million=false] [-profile DIR]
//
// It runs in a network namespace of its own, so that ports 53 and 443 are free and no packet leaves, and therefore as
// root or where users may make namespaces; the section stores needs root, and Redis and PostgreSQL.
//
// The daemon is bin/stsmap in a process of its own. So are all that it is
// measured with, which are this program once more, in a role: the echo server, the network (package fakenet) and the
// load generator. With -profile the daemon is put together within this program instead, and leaves a CPU profile a
// process in DIR; the figures are then a little worse.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

// run is the program in whatever role it was started.
func run(args []string) error {
	b := &bench{table: table{out: os.Stdout}}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	role := flags.String("role", "", "internal: what this process is for")
	only := flags.String("only", "", "the `sections` to run: "+strings.Join(b.names(), ","))
	flags.BoolVar(&b.quick, "quick", false, "a tenth of the work: good for a first look, not for comparing")
	flags.BoolVar(&b.million, "million", true, "measure with a million policies, too")
	flags.StringVar(&b.program, "daemon", "bin/stsmap", "the `program` to measure")
	flags.StringVar(&b.profiles, "profile", "", "write CPU profiles of the daemon to this `folder`")
	flags.StringVar(&b.dir, "dir", "", "internal: the temporary folder")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	for name := range strings.SplitSeq(*only, ",") {
		if name != "" && !slices.Contains(b.names(), name) {
			return fmt.Errorf("no section %q", name)
		}
	}
	switch *role {
	case "":
		return enter(args)
	case "bench":
		return b.run(*only)
	case "echo":
		return answerCalls(new(echoServer).call)
	case "answerer":
		return answerCalls(answerer{}.call)
	case "network":
		return answerCalls(new(network).call)
	case "load":
		return answerCalls(generate)
	case "refresh":
		return serveRefreshes()
	case "profiled":
		return serveProfiled(flags.Arg(0), flags.Arg(1))
	}
	return fmt.Errorf("no role %q", *role)
}

// A bench is one run.
type bench struct {
	quick    bool
	million  bool
	program  string // the daemon
	profiles string // folder; empty: none are wanted
	dir      string // temporary

	self  string // this program
	table table
	load  *process // the load generator
	aside *process // another one, for what happens beside
	net   *process // nil: not there now
}

// A section measures some of the figures.
type section struct {
	name string
	run  func() error
}

func (b *bench) sections() []section {
	return []section{
		{"cached", b.cached},
		{"cold", b.cold},
		{"dane", b.dane},
		{"crowd", b.crowd},
		{"starve", b.starve},
		{"refresh", b.refreshes},
		{"memory", b.memory},
		{"start", b.start},
		{"stores", b.stores},
		{"metrics", b.metrics},
	}
}

func (b *bench) names() (names []string) {
	for _, s := range b.sections() {
		names = append(names, s.name)
	}
	return names
}

// run measures the sections that are wanted, and ends what it started, whatever happens.
func (b *bench) run(only string) (err error) {
	// The kernel kills the children when the thread that started them ends: it must be one that stays.
	runtime.LockOSThread()
	if err := loopbackUp(); err != nil {
		return err
	}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.program, err = filepath.Abs(b.program); err != nil {
		return err
	}
	if b.load, err = b.spawn("load"); err != nil {
		return err
	}
	defer b.load.end()
	if b.aside, err = b.spawn("load"); err != nil {
		return err
	}
	defer b.aside.end()
	defer b.networkDown()

	began := time.Now()
	b.table.head()
	for _, s := range b.sections() {
		if only != "" && !slices.Contains(strings.Split(only, ","), s.name) {
			continue
		}
		if err := b.networkUp(); err != nil {
			return err
		}
		if err := s.run(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	b.table.foot(time.Since(began), b.quick)
	return nil
}

// some is n, or a tenth of it for -quick.
func (b *bench) some(n int) int {
	if b.quick {
		return max(n/10, 1)
	}
	return n
}
