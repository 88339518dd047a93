package site

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Submission is where Postfix takes the messages that it is to send, unless told otherwise.
const Submission = "127.0.0.1:2525"

//go:embed main.cf
var mainCF string

//go:embed master.cf
var masterCF string

// PostfixConfig says how to start a Postfix.
type PostfixConfig struct {
	Dir   string // for configuration, queue and mail.log; exists, and everyone may enter it
	CAPEM []byte // trust anchors for MX hosts
	Root  string // where a Root with the Postfix is mounted; empty: that of this machine

	Submission string // where it takes messages; empty: Submission
	Lookup     string // where it looks up policies; empty: LookupAddr
}

// Postfix is a Postfix with a configuration, a queue and a log of its own.
type Postfix struct {
	Log  Log    // mail.log
	Conf string // its configuration directory, as given by -c
	Jail string // its queue directory, which is the root of chrooted processes
	Bin  string // the directory with a postconf that speaks for it, to be searched before those of the system
	root string // as in PostfixConfig

	submission string // likewise
}

// StartPostfix starts Postfix, and returns when it takes messages.
//
// The queue directory is furnished as a jail from the beginning, with what Debian's start script puts there for
// smtp(8): resolv.conf and services. The trust anchors are not among that: smtp(8) opens smtp_tls_CAfile before it
// enters the jail.
func StartPostfix(c PostfixConfig) (*Postfix, error) {
	p := &Postfix{
		Log:  Log(filepath.Join(c.Dir, "mail.log")),
		Conf: filepath.Join(c.Dir, "etc"),
		Jail: filepath.Join(c.Dir, "spool"),
		Bin:  filepath.Join(c.Dir, "bin"),
		root: c.Root,

		submission: cmp.Or(c.Submission, Submission),
	}
	fill := strings.NewReplacer("@DIR@", c.Dir, "@LOOKUP@", cmp.Or(c.Lookup, LookupAddr), "@SUBMISSION@", p.submission)
	data := filepath.Join(c.Dir, "lib")
	for _, dir := range []string{p.Conf, data, p.Jail, filepath.Join(p.Jail, "etc"), p.Bin} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, err
		}
	}
	services, err := os.ReadFile("/etc/services")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for name, content := range map[string]string{
		filepath.Join(p.Conf, "main.cf"):            fill.Replace(mainCF),
		filepath.Join(p.Conf, "master.cf"):          fill.Replace(masterCF),
		filepath.Join(c.Dir, "ca.pem"):              string(c.CAPEM),
		filepath.Join(p.Jail, "etc", "resolv.conf"): resolvConf(),
		filepath.Join(p.Jail, "etc", "services"):    string(services),
	} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			return nil, err
		}
	}
	owner, err := user.Lookup("postfix")
	if err != nil {
		return nil, err
	}
	uid, _ := strconv.Atoi(owner.Uid)
	if err := os.Chown(data, uid, -1); err != nil {
		return nil, err
	}
	if err := errors.Join(p.age(), p.speak()); err != nil {
		return nil, err
	}
	return p, p.Start()
}

// Move goes on with the Postfix of another root, as an upgrade does: configuration, queue and log are kept.
func (p *Postfix) Move(root string) error {
	if err := p.Stop(); err != nil {
		return err
	}
	p.root = root
	return errors.Join(p.speak(), p.Start())
}

// speak writes the postconf that stsmap will ask: a script that enters the root. Without a root there is none, and the
// one of the system is found.
func (p *Postfix) speak() error {
	path := filepath.Join(p.Bin, "postconf")
	if p.root == "" {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	// Renamed into place, since stsmap may be about to run it.
	script := fmt.Sprintf("#!/bin/sh\nexec chroot '%s' /usr/sbin/postconf \"$@\"\n", p.root)
	return errors.Join(os.WriteFile(path+".new", []byte(script), 0o755), os.Rename(path+".new", path))
}

// Start starts a Postfix that was stopped.
func (p *Postfix) Start() error { return p.run("postfix", "start") }

// Stop ends all processes of Postfix, and returns when they have ended. Its queue and log remain.
func (p *Postfix) Stop() error { return p.run("postfix", "stop") }

// Configure sets parameters in main.cf, each "name = value", and starts Postfix anew, so that no process goes on with
// the old ones.
func (p *Postfix) Configure(settings ...string) error {
	return p.reconfigure(append([]string{"-e"}, settings...))
}

// Chroot makes the processes of a service, such as "smtp/unix", enter the jail when they start, and starts Postfix
// anew.
func (p *Postfix) Chroot(service string) error {
	return p.reconfigure([]string{"-F", service + "/chroot=y"})
}

func (p *Postfix) reconfigure(args []string) error {
	return errors.Join(p.Stop(), p.run("postconf", args...), p.age(), p.Start())
}

// age makes the configuration look old. Every program of Postfix waits until main.cf has not been changed for some two
// seconds, lest it reads half of it (util/dict.c, dict_load_file_xt), and here no other process writes it.
func (p *Postfix) age() error {
	then := time.Now().Add(-time.Minute)
	return errors.Join(
		os.Chtimes(filepath.Join(p.Conf, "main.cf"), then, then),
		os.Chtimes(filepath.Join(p.Conf, "master.cf"), then, then),
	)
}

// A Snapshot is the configuration of a Postfix at some time.
type Snapshot struct{ main, master []byte }

// Snapshot returns the present configuration.
func (p *Postfix) Snapshot() (Snapshot, error) {
	main, err := os.ReadFile(filepath.Join(p.Conf, "main.cf"))
	if err != nil {
		return Snapshot{}, err
	}
	master, err := os.ReadFile(filepath.Join(p.Conf, "master.cf"))
	return Snapshot{main, master}, err
}

// Restore returns to the configuration s, with an empty queue. It starts Postfix anew if that changes anything.
func (p *Postfix) Restore(s Snapshot) error {
	if err := p.run("postsuper", "-d", "ALL"); err != nil {
		return err
	}
	now, err := p.Snapshot()
	if err != nil || string(now.main) == string(s.main) && string(now.master) == string(s.master) {
		return err
	}
	return errors.Join(
		p.Stop(),
		os.WriteFile(filepath.Join(p.Conf, "main.cf"), s.main, 0o644),
		os.WriteFile(filepath.Join(p.Conf, "master.cf"), s.master, 0o644),
		p.age(),
		p.Start(),
	)
}

// Flush makes Postfix try all deferred messages again, now.
func (p *Postfix) Flush() error { return p.run("postqueue", "-f") }

// run runs a command of Postfix on this instance.
func (p *Postfix) run(name string, args ...string) error {
	// A file, not a pipe: "postfix start" leaves a daemon behind that keeps it open.
	out, err := os.CreateTemp(filepath.Dir(p.Conf), name+"-")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	command := append([]string{name, "-c", p.Conf}, args...)
	if p.root != "" {
		command = append([]string{"chroot", p.root}, command...)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(out.Name())
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(text)))
	}
	return nil
}

// A Message is one that Postfix has taken.
type Message struct {
	ID   string // the queue identifier that mail.log calls it by
	Seen int64  // how far mail.log was when the message was handed in
}

// Release returns the mail_version of the Postfix that runs now, such as "3.7.11".
func (p *Postfix) Release() (string, error) {
	command := []string{"postconf", "-dh", "mail_version"}
	if p.root != "" {
		command = append([]string{"chroot", p.root}, command...)
	}
	out, err := exec.Command(command[0], command[1:]...).Output()
	return strings.TrimSpace(string(out)), err
}

// Mute makes the postconf that stsmap will ask fail, until the next Move or Unmute.
func (p *Postfix) Mute() error {
	path := filepath.Join(p.Bin, "postconf")
	script := "#!/bin/sh\necho 'postconf: fatal: mute' >&2\nexit 1\n"
	return errors.Join(os.WriteFile(path+".new", []byte(script), 0o755), os.Rename(path+".new", path))
}

// Unmute ends what Mute has begun.
func (p *Postfix) Unmute() error { return p.speak() }

// Send hands in a message to the given recipient, with further lines in its header; an address that is not ASCII is sent
// with SMTPUTF8.
func (p *Postfix) Send(recipient string, header ...string) (Message, error) {
	m := Message{Seen: p.Log.Mark()}
	c, err := textproto.Dial("tcp", p.submission)
	if err != nil {
		return m, err
	}
	defer c.Close()
	if _, _, err := c.ReadResponse(220); err != nil {
		return m, err
	}
	options := ""
	if strings.ContainsFunc(recipient, func(r rune) bool { return r > 127 }) {
		options = " SMTPUTF8"
	}
	for _, step := range []struct {
		code    int
		command string
	}{
		{250, "EHLO submitter.example.net"},
		{250, "MAIL FROM:<>" + options},
		{250, "RCPT TO:<" + recipient + ">"},
		{354, "DATA"},
	} {
		if err := converse(c, step.code, step.command); err != nil {
			return m, err
		}
	}
	w := c.DotWriter()
	for _, line := range header {
		fmt.Fprintf(w, "%s\r\n", line)
	}
	fmt.Fprintf(w, "From: stsmap <stsmap@sender.example.net>\r\nSubject: hello\r\n\r\nHello.\r\n")
	if err := w.Close(); err != nil {
		return m, err
	}
	_, text, err := c.ReadResponse(250)
	if err != nil {
		return m, err
	}
	_, id, ok := strings.Cut(text, "queued as ")
	if !ok {
		return m, fmt.Errorf("no queue identifier in %q", text)
	}
	m.ID = id
	return m, ignoreEOF(converse(c, 221, "QUIT"))
}

// A Status is what became of one attempt to deliver a message.
type Status struct {
	Word string // "sent", "deferred" or "bounced"
	Why  string // what mail.log has in parentheses
}

// Status waits for the outcome of the n-th attempt, from 0, to deliver m.
func (p *Postfix) Status(ctx context.Context, m Message, n int) (Status, error) {
	re := regexp.MustCompile(` ` + m.ID + `: to=<.*status=([a-z]+) \((.*)\)$`)
	from := m.Seen
	for {
		found := 0
		for _, line := range p.Log.Since(from) {
			g := re.FindStringSubmatch(line)
			if g == nil {
				continue
			}
			if found == n {
				return Status{Word: g[1], Why: g[2]}, nil
			}
			found++
		}
		if err := pause(ctx); err != nil {
			return Status{}, fmt.Errorf("%s: no outcome: %w", m.ID, err)
		}
	}
}

func converse(c *textproto.Conn, code int, command string) error {
	if err := c.PrintfLine("%s", command); err != nil {
		return err
	}
	if _, _, err := c.ReadResponse(code); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Answer puts the postconf of a root in the place of the one that stsmap will ask, while the Postfix that runs stays; empty
// is that of this machine. Move and Unmute end it.
func (p *Postfix) Answer(root string) error {
	running := p.root
	defer func() { p.root = running }()
	p.root = root
	return p.speak()
}
