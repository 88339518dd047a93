// The demo shows what stsmap is good for, on one machine and without the Internet: a small internet is made on
// loopback, a real Postfix sends one message to each of its domains, and what the domain publishes, what stsmap
// answers and what mail.log says is printed.
//
// It is no test: what must not break stands in e2e/scenarios. It ends with 1 if a message went another way than told.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"stsmap/e2e/site"
)

//go:embed world.txtar
var world string

func main() { os.Exit(site.Inside(inside)) }

func inside() int {
	binary := flag.String("stsmap", "bin/stsmap", "the program to show")
	flag.Parse()
	if err := show(*binary); err != nil {
		fmt.Fprintf(os.Stderr, "demo: error: %v\n", err)
		return 1
	}
	return 0
}

// story is one message, sent to the domain.
type story struct {
	domain    string
	title     string
	publishes string // what the world says of the domain, in short
	delivered bool
}

func stories() []story {
	return []story{
		{"verified.example", "A domain that does everything right",
			"mode enforce, mx mx.verified.example", true},
		{"expired.example", "The certificate of its MX host has expired",
			"mode enforce, mx mx.expired.example", false},
		{"stripped.example", "Somebody on the way has removed STARTTLS",
			"mode enforce, mx mx.stripped.example", false},
		{"forged.example", "Somebody has replaced the MX record by mx.rogue.example",
			"mode enforce, mx *.forged.example", false},
		{"testing.example", "The domain is still trying it out; its certificate is bad",
			"mode testing, mx mx.testing.example", true},
		{"silent.example", "The domain has no policy, like most",
			"nothing", true},
	}
}

// show sets everything up, tells the stories, and takes everything down again.
func show(binary string) (err error) {
	if binary, err = filepath.Abs(binary); err != nil {
		return err
	}
	if _, err := os.Stat(binary); err != nil {
		return fmt.Errorf("%w; run: make", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	fmt.Println("A small internet on loopback, a real Postfix, and stsmap between them.")
	fmt.Println("main.cf: smtp_tls_policy_maps = socketmap:inet:" + site.LookupAddr + ":postfix")
	s, err := site.Start(ctx, world, binary, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.StartDaemon(ctx, ""); err != nil {
		return err
	}
	delivered, surprises := 0, 0
	for i, st := range stories() {
		ok, err := tell(ctx, s, i+1, st)
		if err != nil {
			return err
		}
		if ok {
			delivered++
		}
		if ok != st.delivered {
			surprises++
		}
	}
	fmt.Printf("\n%d messages: %d delivered, %d waiting until they can be delivered safely.\n",
		len(stories()), delivered, len(stories())-delivered)
	if surprises > 0 {
		return fmt.Errorf("%d of them went another way than they should", surprises)
	}
	fmt.Println("Without stsmap all of them would have been delivered, to whomever it was.")
	return nil
}

// tell sends the message of one story and prints what comes of it. It reports whether the message was delivered.
func tell(ctx context.Context, s *site.Site, number int, st story) (delivered bool, err error) {
	fmt.Printf("\n%d. %s\n", number, st.title)
	say("publishes", st.publishes)
	query := exec.CommandContext(ctx, s.Daemon.Binary(), "query", "--server", site.LookupAddr, st.domain)
	answer, err := query.CombinedOutput()
	if err != nil {
		return false, fmt.Errorf("stsmap query %s: %w: %s", st.domain, err, answer)
	}
	say("stsmap says", strings.TrimSpace(string(answer)))
	m, err := s.Postfix.Send("you@" + st.domain)
	if err != nil {
		return false, err
	}
	status, err := s.Postfix.Status(ctx, m, 0)
	if err != nil {
		return false, err
	}
	for _, line := range s.Postfix.Log.Since(m.Seen) {
		_, text, smtp := strings.Cut(line, " postfix/smtp[")
		if _, text, _ = strings.Cut(text, "]: "); !smtp || strings.HasPrefix(text, m.ID) {
			continue // the other programs of Postfix, and the status, which comes below
		}
		text, _, _ = strings.Cut(text, ": TLSv1")
		say("mail.log", text)
	}
	say("mail.log", fmt.Sprintf("status=%s (%s)", status.Word, status.Why))
	return status.Word == "sent", nil
}

// say prints a text with its label, in lines of at most 80 columns.
func say(label, text string) {
	const width = 80
	line := fmt.Sprintf("   %-12s", label)
	indent := strings.Repeat(" ", len(line))
	empty := true
	for _, word := range strings.Fields(text) {
		if !empty && len(line)+1+len(word) > width {
			fmt.Println(line)
			line, empty = indent, true
		}
		if !empty {
			line += " "
		}
		line += word
		empty = false
	}
	fmt.Println(line)
}
