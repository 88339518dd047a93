package doctor

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	mainUnit = "stsmap.service"
	// postfixSocket is the one in the queue directory.
	postfixSocket = "stsmap-postfix.socket"
	// properties are the ones that doctor reads with systemctl.
	properties = "Id,LoadState,ActiveState,SubState,UnitFileState,FragmentPath,DropInPaths,NeedDaemonReload,MainPID,Result"
)

// ourUnits are those that packages have.
func ourUnits() []string { return []string{mainUnit, "stsmap.socket", postfixSocket} }

// otherUnits are those of other programs for the same.
func otherUnits() []string {
	return []string{"postfix-tlspol.service", "postfix-mta-sts-resolver.service", "mta-sts-daemon.service"}
}

// systemdRuns says whether systemd is the service manager (sd_booted(3)).
func systemdRuns() bool {
	_, err := os.Stat("/run/systemd/system")
	return err == nil
}

// checkUnits is LOC-10.
func checkUnits(ctx context.Context, e *exam) []Result {
	all := e.strangers(ctx)
	if !systemdRuns() {
		return append(all, skip("systemd does not run here"))
	}
	out, err := systemctl(ctx)
	if err != nil {
		return append(all, skip("systemctl: %v", err))
	}
	units := parseUnits(out)
	if _, err := os.Stat("/var/spool/postfix"); err != nil {
		delete(units, postfixSocket) // it has a condition that is not met
	}
	return append(all, judgeUnits(units, deletedProgram)...)
}

// systemctl asks for all units at once.
func systemctl(ctx context.Context) (string, error) {
	var out, complaint bytes.Buffer
	args := append([]string{"show", "--no-pager", "--property=" + properties}, append(ourUnits(), otherUnits()...)...)
	cmd := exec.CommandContext(ctx, "systemctl", args...)
	cmd.Stdout, cmd.Stderr = &out, &complaint
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(complaint.String()); text != "" {
			err = errors.New(text)
		}
		return "", err
	}
	return out.String(), nil
}

// A unit is its properties by name.
type unit map[string]string

func (u unit) exists() bool { return u["LoadState"] != "" && u["LoadState"] != "not-found" }

// parseUnits reads what systemctl show says: a property a line, and an empty line
// between units.
func parseUnits(text string) map[string]unit {
	all := make(map[string]unit)
	for block := range strings.SplitSeq(text, "\n\n") {
		u := make(unit)
		for line := range strings.Lines(block) {
			if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
				u[name] = value
			}
		}
		if u["Id"] != "" {
			all[u["Id"]] = u
		}
	}
	return all
}

// deletedProgram says whether a process runs a program that was replaced since.
func deletedProgram(pid string) bool {
	target, err := os.Readlink(filepath.Join("/proc", pid, "exe"))
	return err == nil && strings.HasSuffix(target, " (deleted)")
}

// judgeUnits is about the state of the units.
func judgeUnits(units map[string]unit, replaced func(pid string) bool) (all []Result) {
	for _, name := range otherUnits() {
		if u := units[name]; u["ActiveState"] == "active" || u["UnitFileState"] == "enabled" {
			all = append(all, warn("%s is %s, %s", name, u["ActiveState"], orElse(u["UnitFileState"], "not enabled")).
				because("it does the same as stsmap; one of the two is too much once Postfix asks stsmap").fix("systemctl disable --now "+name))
		}
	}
	main := units[mainUnit]
	if !main.exists() {
		return append(all, info("there is no %s: the daemon is not started with the system", mainUnit))
	}
	for _, name := range ourUnits() {
		if u := units[name]; u.exists() {
			all = append(all, judgeUnit(name, u)...)
		}
	}
	switch {
	case main["ActiveState"] == "failed":
		all = append(all, fail("%s has failed: %s", mainUnit, main["Result"]).because("nobody answers Postfix").
			fix("journalctl -u "+mainUnit+" -n 50", "systemctl restart "+mainUnit))
	case main["ActiveState"] == "active" && replaced(main["MainPID"]):
		all = append(all, warn("%s runs a program that was replaced since", mainUnit).because("it was upgraded, and the old one still runs").
			fix("systemctl restart "+mainUnit))
	case !startsByItself(units):
		all = append(all, fail("neither %s nor a socket unit is enabled", mainUnit).because("after the next start of the system nobody answers Postfix").
			fix("systemctl enable --now stsmap.socket "+mainUnit))
	}
	if len(all) == 0 {
		all = append(all, ok("%s is %s (%s), %s", mainUnit, main["ActiveState"], main["SubState"], orElse(main["UnitFileState"], "without a unit file")))
	}
	return all
}

// startsByItself says whether Postfix is answered after a start of the system.
func startsByItself(units map[string]unit) bool {
	return slices.ContainsFunc(ourUnits(), func(name string) bool {
		return strings.HasPrefix(units[name]["UnitFileState"], "enabled") || units[name]["UnitFileState"] == "static" && units[name]["ActiveState"] == "active"
	})
}

// judgeUnit is about one of ours.
func judgeUnit(name string, u unit) (all []Result) {
	if u["LoadState"] == "masked" {
		return []Result{fail("%s is masked", name).because("systemd never starts it").fix("systemctl unmask "+name, "systemctl enable --now "+name)}
	}
	if u["LoadState"] != "loaded" {
		all = append(all, fail("%s cannot be loaded: %s", name, u["LoadState"]).because("systemd does not start it").
			fix("systemd-analyze verify "+orElse(u["FragmentPath"], name)))
	}
	if u["NeedDaemonReload"] == "yes" {
		all = append(all, warn("%s was changed on disk since systemd read it", name).because("what runs is not what is installed").
			fix("systemctl daemon-reload", "systemctl restart "+name))
	}
	if drops := u["DropInPaths"]; drops != "" {
		all = append(all, info("%s is changed by %s", name, drops))
	}
	if strings.HasSuffix(name, ".socket") && u["ActiveState"] != "active" && strings.HasPrefix(u["UnitFileState"], "enabled") {
		all = append(all, fail("%s is %s", name, u["ActiveState"]).because("Postfix finds no socket, and all mail waits").
			fix("systemctl start "+name))
	}
	return all
}

// strangers are other daemons of the kind, at the addresses that they use by
// default.
func (e *exam) strangers(ctx context.Context) (all []Result) {
	for _, peer := range [][2]string{{"127.0.0.1:8461", "postfix-mta-sts-resolver"}, {"127.0.0.1:8642", "postfix-tlspol"}} {
		address, what := peer[0], peer[1]
		if slices.ContainsFunc(e.addresses(), func(a string) bool { return sameAddress(a, address) }) {
			continue
		}
		once, cancel := context.WithTimeout(ctx, askLimit)
		conn, err := new(net.Dialer).DialContext(once, "tcp", address)
		cancel()
		if err != nil {
			continue
		}
		conn.Close()
		all = append(all, warn("somebody else listens on %s, where %s does by default", address, what).
			because("two daemons for the same are one too many: look whom Postfix asks, in LOC-02").fix("ss -lptn 'sport = :"+address[strings.LastIndexByte(address, ':')+1:]+"'"))
	}
	return all
}
