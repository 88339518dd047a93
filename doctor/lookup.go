package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"stsmap/postfix/postconf"
	"stsmap/socketmap"
)

// absent is a domain that does not exist (RFC 6761, Section 6.4), for when none
// with a policy is known.
const absent = "stsmap.invalid"

// checkLookup is LOC-12.
func checkLookup(ctx context.Context, e *exam) []Result {
	return e.eachSetup(mailers, func(s *postconf.Setup, services []postconf.Service) []Result {
		for _, service := range services {
			for _, t := range e.asking(s, service) {
				return []Result{e.compareLookup(ctx, s, service, t)}
			}
		}
		return []Result{skip("%sstsmap is not asked; see LOC-02", e.where(s, services))}
	})
}

// compareLookup asks by way of postmap(1) and directly, and compares.
func (e *exam) compareLookup(ctx context.Context, s *postconf.Setup, service postconf.Service, t postconf.Table) Result {
	where, domain := e.where(s, []postconf.Service{service}), absent
	if len(e.domains) > 0 {
		domain = e.domains[0]
	}
	queue, _ := s.Main("queue_directory")
	table := t
	if path, isUnix := strings.CutPrefix(t.Address, "unix:"); isUnix && filepath.IsAbs(path) && service.Chroot {
		// postmap is in no chroot. That a path is wrong in there is for LOC-05.
		if _, err := os.Stat(path); err != nil {
			table.Text = "socketmap:unix:" + strings.TrimPrefix(path, "/") + ":" + t.Map
		}
	}
	command := fmt.Sprintf("cd %s && sudo -u %s postmap %s-q %s %s", quoted(queue), postfixUser(s), instance(s), quoted(domain), quoted(table.Text))
	theirs, err := e.postmap(ctx, s, table, domain)
	switch {
	case errors.Is(err, errNotRoot):
		return skip("%spostmap cannot be run as user %s: run it as root", where, postfixUser(s))
	case err != nil:
		return fail("%spostmap -q %s %s: %v", where, domain, t, err).because("smtp(8) asks in the same way").fix(command)
	}
	// What was retrieved in between makes a difference once.
	for range 2 {
		var mine socketmap.Reply
		if mine, err = ask(ctx, e.seenFromHere(s, t.Address), t.Map, domain); err != nil {
			return fail("%sstsmap query %s: %s", where, domain, reason(err)).because("Postfix was answered, and this program is not").fix(command)
		}
		if answer := answerOf(mine); answer == theirs {
			return ok("%spostmap gets the same for %s as a direct question: %s", where, domain, answer)
		} else if again, err := e.postmap(ctx, s, table, domain); err == nil && again != theirs {
			theirs = again
		} else {
			err = fmt.Errorf("%s, and a direct question: %s", theirs, answer)
			return fail("%spostmap gets for %s: %v", where, domain, err).because("somebody stands between Postfix and stsmap").fix(command)
		}
	}
	return warn("%sthe answer for %s changes with every question", where, domain).
		because("two daemons may share the address, or what the domain publishes changes right now").fix(command)
}

// answerOf is a reply as postmap tells it.
func answerOf(r socketmap.Reply) string {
	if r.Status == socketmap.OK {
		return r.Text
	}
	return r.Status.String()
}

func postfixUser(s *postconf.Setup) string {
	name, _ := s.Main("mail_owner")
	return name
}

// postmap looks a domain up as the user of Postfix, from the queue directory.
func (e *exam) postmap(ctx context.Context, s *postconf.Setup, t postconf.Table, domain string) (string, error) {
	who, err := owner(s)
	if err != nil {
		return "", err
	}
	dir, _ := s.Main("command_directory")
	config, _ := s.Main("config_directory")
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "postmap"), "-c", config, "-q", domain, t.Text)
	cmd.Dir, _ = s.Main("queue_directory")
	if me := os.Geteuid(); me == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(who.uid), Gid: uint32(who.gid), Groups: []uint32{uint32(who.gid)}}}
	} else if me != who.uid {
		return "", errNotRoot
	}
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	text := strings.TrimSpace(out.String())
	switch said := strings.TrimSpace(complaint.String()); {
	case said != "":
		// The second line of postmap only says that there was a first.
		line, _, _ := strings.Cut(said, "\n")
		return "", errors.New(line)
	case text != "":
		return text, nil
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil && cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == 1:
		return socketmap.NotFound.String(), nil // it ends so, without a word
	}
	return "", err
}

// UserName returns the name of a user, or the number of one without.
func UserName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return strconv.Itoa(uid)
}
