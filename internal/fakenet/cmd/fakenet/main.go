// Fakenet runs a small internet on loopback, or in a network namespace, from a description.
//
// It does not change routes or addresses, and does not become a daemon. The language of descriptions is
// taught by package fakenet.
//
//	fakenet [-dns addr] [-https-port N] [-smtp-port N] [-dir D] [-v] FILE
//
// When all listens it prints one line, "ready dns=127.0.0.1:5353 ca=D/ca.pem"; without -dir there is no
// certificate to name. With -v a line for each question, request and message follows. SIGHUP reads FILE
// again ("reloaded", or the error, and the old world stays); SIGTERM and SIGINT end it.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"stsmap/internal/fakenet"
)

func main() {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	os.Exit(run(os.Args[1:], &lineWriter{to: os.Stdout}, os.Stderr, signals))
}

// run is the program, until one of the signals ends it; it returns the exit status.
func run(args []string, stdout, stderr io.Writer, signals <-chan os.Signal) int {
	flags := flag.NewFlagSet("fakenet", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var o fakenet.Options
	flags.StringVar(&o.DNS, "dns", "127.0.0.1:0", "`address` of the name server, UDP and TCP")
	flags.IntVar(&o.HTTPSPort, "https-port", 0, "`port` of the policy hosts; 0: one of its own for every address")
	flags.IntVar(&o.SMTPPort, "smtp-port", 0, "`port` of the MX hosts; 0: one of its own for every address")
	flags.StringVar(&o.Dir, "dir", "", "`folder` for ca.pem")
	verbose := flags.Bool("v", false, "print a line for every question, request and message")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() != 1 {
		fmt.Fprintln(stderr, "fakenet: error: wants one FILE")
		return 2
	}
	if *verbose {
		o.Log = func(line string) { fmt.Fprintln(stdout, line) }
	}
	file := flags.Arg(0)
	text, err := os.ReadFile(file)
	if err != nil {
		fmt.Fprintln(stderr, "fakenet: error:", err)
		return 1
	}
	n, err := fakenet.Start(string(text), o)
	if err != nil {
		fmt.Fprintln(stderr, "fakenet: error:", file+":", err)
		return 1
	}
	defer n.Close()
	ca := ""
	if o.Dir != "" {
		ca = filepath.Join(o.Dir, "ca.pem")
	}
	fmt.Fprintf(stdout, "ready dns=%s ca=%s\n", n.DNSAddr(), ca)
	for s := range signals {
		if s != syscall.SIGHUP {
			break
		}
		if err := reload(n, file); err != nil {
			fmt.Fprintln(stderr, "fakenet: error:", file+":", err)
			continue
		}
		fmt.Fprintln(stdout, "reloaded")
	}
	return 0
}

func reload(n *fakenet.Net, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return n.Update(string(text))
}

// lineWriter keeps lines from different goroutines apart.
type lineWriter struct {
	mu sync.Mutex // guards to
	to io.Writer
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(p) // a whole line at once; os.Stdout does not block for long
}
