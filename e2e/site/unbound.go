package site

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ResolverAddr is the address of Unbound in the namespace, as its resolv.conf says.
const ResolverAddr = "127.0.0.53"

//go:embed unbound.conf
var unboundConf string

// UnboundConfig says how to start an Unbound.
type UnboundConfig struct {
	Dir         string         // for everything that Unbound writes; exists
	Authority   netip.AddrPort // the name server for "."
	MaxTTL      time.Duration  // no answer, positive or negative, is cached for longer; 0: nothing is cached
	TrustAnchor string         // a DS or DNSKEY record for "."; empty: no validation
}

// Unbound is a running Unbound.
type Unbound struct {
	Log  Log // with a line for every question; it goes on in that of the Unbound before in the same directory
	conf string
	cmd  *exec.Cmd
}

// StartUnbound starts Unbound on ResolverAddr, and returns when it answers.
func StartUnbound(ctx context.Context, c UnboundConfig) (*Unbound, error) {
	modules, anchor := "iterator", ""
	if c.TrustAnchor != "" {
		modules, anchor = "validator iterator", "trust-anchor: "+strconv.Quote(c.TrustAnchor)
	}
	text := strings.NewReplacer(
		"@ADDR@", ResolverAddr,
		"@DIR@", c.Dir,
		"@AUTHORITY@", fmt.Sprintf("%s@%d", c.Authority.Addr(), c.Authority.Port()),
		"@MAXTTL@", strconv.Itoa(int(c.MaxTTL/time.Second)),
		"@MODULES@", modules,
		"@ANCHOR@", anchor,
	).Replace(unboundConf)
	u := &Unbound{Log: Log(filepath.Join(c.Dir, "unbound.log")), conf: filepath.Join(c.Dir, "unbound.conf")}
	if err := os.WriteFile(u.conf, []byte(text), 0o644); err != nil {
		return nil, err
	}
	u.cmd = exec.Command("unbound", "-d", "-c", u.conf)
	if err := u.cmd.Start(); err != nil {
		return nil, err
	}
	for {
		err := u.control("status")
		if err == nil {
			return u, nil
		}
		if pause(ctx) != nil {
			return nil, errors.Join(fmt.Errorf("unbound does not answer: %w: %s", err, u.Log.Since(0)), u.Stop())
		}
	}
}

// Flush makes Unbound forget every answer, and every server it found silent or lame.
func (u *Unbound) Flush() error {
	return errors.Join(u.control("flush_zone", "."), u.control("flush_infra", "all"))
}

// Stop ends Unbound, and returns when it has ended.
func (u *Unbound) Stop() error {
	u.cmd.Process.Signal(syscall.SIGTERM)
	u.cmd.Wait() // ends by a signal: an error that says nothing
	return nil
}

func (u *Unbound) control(args ...string) error {
	_, err := run("unbound-control", append([]string{"-c", u.conf}, args...)...)
	return err
}
