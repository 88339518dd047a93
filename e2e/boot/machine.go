package boot

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"stsmap/e2e/site"
)

// files are what a machine has beside its packages.
//
//go:embed all:machine
var files embed.FS

// A Machine is a system in a container that can be booted. The container has a network of its own, with nothing in it but
// loopback.
type Machine struct {
	dir     string   // of its tree
	console string   // the file of what systemd says
	prefix  string   // of the names of its control groups
	groups  []string // these
	nspawn  *exec.Cmd
	ended   chan error // gets the result of nspawn.Wait, once
	leader  int        // the process that is number 1 in there; 0 while it is off
}

// NewMachine makes a system at dir, which exists and is empty. More are the files to be copied there, by their path in
// the machine, and prefix begins the names of its control groups, for RemoveGroups. It must be called in a namespace made
// by site.Inside, at whose end everything is undone.
func NewMachine(root *site.Root, dir, prefix string, more map[string]string) (*Machine, error) {
	m := &Machine{dir: dir, console: dir + ".console", prefix: prefix}
	if err := root.Layer(dir); err != nil {
		return nil, err
	}
	if err := m.furnish(); err != nil {
		return nil, err
	}
	for to, from := range more {
		if err := m.Put(from, to); err != nil {
			return nil, err
		}
	}
	// As systemctl enable does it.
	wants := filepath.Join(dir, "etc/systemd/system/multi-user.target.wants/fakenet.service")
	return m, errors.Join(os.MkdirAll(filepath.Dir(wants), 0o755), os.Symlink("/etc/systemd/system/fakenet.service", wants))
}

// furnish copies files into the tree.
func (m *Machine) furnish() error {
	tree, err := fs.Sub(files, "machine")
	if err != nil {
		return err
	}
	return fs.WalkDir(tree, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(tree, path)
		if err != nil {
			return err
		}
		return m.write(path, text)
	})
}

// Put copies a file of this machine to a path in that one.
func (m *Machine) Put(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return m.write(to, text)
}

// write replaces a file in the tree; a program is known by its folder. What was a symbolic link, as resolv.conf may be,
// is no longer one.
func (m *Machine) write(path string, text []byte) error {
	mode := fs.FileMode(0o644)
	if filepath.Base(filepath.Dir(path)) == "bin" {
		mode = 0o755
	}
	to := filepath.Join(m.dir, path)
	err := os.MkdirAll(filepath.Dir(to), 0o755)
	if err == nil {
		err = os.Remove(to)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(to, text, mode)
}

// Boot starts the machine, and returns when systemd has started all that it is to start, successfully or not.
func (m *Machine) Boot(ctx context.Context) error {
	console, err := os.OpenFile(m.console, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer console.Close()
	if err := m.group(); err != nil {
		return err
	}
	m.nspawn = exec.Command("sh", append([]string{"-c", intoGroups, "systemd-nspawn"}, append(m.groups, "--", "--quiet", "--boot", "--directory="+m.dir, "--machine=stsmap", "--console=pipe",
		// There may be no systemd here to register with, and no resolv.conf of ours is to get there.
		"--register=no", "--keep-unit", "--private-network", "--resolv-conf=off", "--timezone=off", "--link-journal=no")...)...)
	m.nspawn.Stdout, m.nspawn.Stderr = console, console
	if err := m.nspawn.Start(); err != nil {
		return err
	}
	m.ended = make(chan error, 1)
	go func(cmd *exec.Cmd, ended chan<- error) { ended <- cmd.Wait() }(m.nspawn, m.ended)
	if err := m.until(ctx, m.findLeader); err != nil {
		return err
	}
	return m.until(ctx, func() bool {
		// While it cannot be asked it says "offline", or nothing.
		out, _ := m.Command(ctx, "systemctl", "is-system-running").Output()
		state := strings.TrimSpace(string(out))
		return state == "running" || state == "degraded"
	})
}

// intoGroups is the shell's part of starting a program in control groups: $0 is the program, and its arguments follow the
// groups and "--".
const intoGroups = `while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit; shift; done; shift; exec "$0" "$@"`

// group makes control groups for the machine, below those of this process. With --keep-unit systemd-nspawn would make
// them by itself, but under one name, so that two machines would take each other's services for their own.
func (m *Machine) group() error {
	if m.groups != nil {
		return nil
	}
	parents, err := ownGroups()
	if err != nil {
		return err
	}
	for _, parent := range parents {
		group, err := os.MkdirTemp(parent, m.prefix)
		if err != nil {
			return err
		}
		m.groups = append(m.groups, group)
	}
	return nil
}

// ownGroups returns the folders of the control groups of this process that systemd uses.
func ownGroups() (folders []string, err error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		// hierarchy:controllers:path, where systemd has the hierarchy 0, or one by its name, or both (cgroups(7)).
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		var mounts []string
		switch {
		case len(fields) == 3 && fields[1] == "":
			mounts = []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"}
		case len(fields) == 3 && fields[1] == "name=systemd":
			mounts = []string{"/sys/fs/cgroup/systemd"}
		}
		for _, mount := range mounts {
			folder := filepath.Join(mount, fields[2])
			if _, err := os.Stat(filepath.Join(folder, "cgroup.procs")); err == nil {
				folders = append(folders, folder)
				break
			}
		}
	}
	return folders, nil
}

// RemoveGroups takes away the control groups of all machines that were made with prefix, which the end of the namespace
// does not. It must be called after that end: until then the groups contain zombie processes.
func RemoveGroups(prefix string) error {
	parents, err := ownGroups()
	errs := []error{err}
	for _, parent := range parents {
		groups, err := filepath.Glob(filepath.Join(parent, prefix+"*"))
		errs = append(errs, err)
		for _, group := range groups {
			var below []string
			errs = append(errs, filepath.WalkDir(group, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					below = append(below, path)
				}
				return err
			}))
			for _, path := range slices.Backward(below) { // the innermost first
				errs = append(errs, syscall.Rmdir(path))
			}
		}
	}
	return errors.Join(errs...)
}

// findLeader looks for the child of systemd-nspawn that the machine consists of. It is there before it is the one to
// enter: only when systemd has come up its namespaces are complete.
func (m *Machine) findLeader() bool {
	pid := m.nspawn.Process.Pid
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return false
	}
	leader, err := strconv.Atoi(strings.TrimSpace(string(children)))
	if err != nil {
		return false
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", leader))
	if err != nil || !bytes.HasPrefix(name, []byte("systemd")) || bytes.HasPrefix(name, []byte("systemd-nspawn")) {
		return false
	}
	m.leader = leader
	return true
}

// until waits for done, the end of the machine, or that of ctx.
func (m *Machine) until(ctx context.Context, done func() bool) error {
	for !done() {
		select {
		case err := <-m.ended:
			m.ended <- err // for Off
			return fmt.Errorf("the machine went off: %w: %s", err, m.said())
		case <-ctx.Done():
			return fmt.Errorf("the machine does not come up: %w: %s", ctx.Err(), m.said())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// said is the end of what was on the console.
func (m *Machine) said() string {
	text, err := os.ReadFile(m.console)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}

// Command returns a command that is to be run in the machine, which must be on, with the environment of a service.
func (m *Machine) Command(ctx context.Context, args ...string) *exec.Cmd {
	words := m.Words(args...)
	return exec.CommandContext(ctx, words[0], words[1:]...)
}

// Words are the program and the arguments that run a command in the machine.
func (m *Machine) Words(args ...string) []string {
	return append([]string{"nsenter", "--target", strconv.Itoa(m.leader), "--all", "--", "/usr/bin/env", "-i", "HOME=/root",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "SYSTEMD_PAGER=cat",
		"DEBIAN_FRONTEND=noninteractive"}, args...)
}

// On reports whether the machine was booted.
func (m *Machine) On() bool { return m.leader != 0 }

// Off shuts the machine down, in good order unless ctx ends before. It does nothing if it is off.
func (m *Machine) Off(ctx context.Context) error {
	if m.nspawn == nil {
		return nil
	}
	// SIGRTMIN+3 to systemd is "halt" (systemd(1)), which it takes from systemd-nspawn for SIGTERM.
	if err := m.nspawn.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	var failed error
	select {
	case <-m.ended:
	case <-ctx.Done():
		failed = fmt.Errorf("the machine does not go off: %w: %s", ctx.Err(), m.said())
		m.nspawn.Process.Kill()
		<-m.ended
	}
	m.nspawn, m.leader = nil, 0
	return failed
}
