package site

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"
)

// dirVariable carries the directory of the site into the namespace; that it is set is how a process knows that it is
// inside.
const dirVariable = "E2E_SITE_DIR"

// Inside runs main in network, mount and process namespaces of its own, and returns what main returned, to be given
// to os.Exit; 1, after a message on standard error, if there is no way in. It starts the running program once more
// with the same arguments, so a program calls it first of all and does everything else in main.
//
// The namespaces have no name, in contrast to those of "ip netns": when the first process in them ends, the kernel
// ends all the others, takes down the interfaces and unmounts what was mounted, so that nothing is left behind
// however the end came about.
func Inside(main func() int) int {
	if Dir() != "" {
		if err := furnish(); err != nil {
			fmt.Fprintf(os.Stderr, "e2e: error: %v\n", err)
			return 1
		}
		return main()
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e: error: not root: a real Postfix needs root, and so do the namespaces it runs in")
		fmt.Fprintln(os.Stderr, "e2e: hint: sudo make e2e, or docker run --privileged")
		return 1
	}
	code, err := enter()
	if err != nil {
		fmt.Fprintf(os.Stderr, "e2e: error: %v\n", err)
		return 1
	}
	return code
}

// Dir returns the directory that everything of the site is under: an empty one in memory, that ends with the
// namespace. It is empty outside of a namespace made by Inside.
func Dir() string { return os.Getenv(dirVariable) }

// enter starts this program again in new namespaces and waits for its end.
func enter() (code int, err error) {
	dir, err := os.MkdirTemp("", "stsmap-e2e-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.Remove(dir)) }()
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), dirVariable+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	// The kernel sends Pdeathsig when the thread that started the child ends, not when the process does.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("namespaces: %w (in a container, this needs --privileged)", err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM)
	ended := make(chan struct{})
	go func() {
		select {
		case <-stop:
			cmd.Process.Kill()
		case <-ended:
		}
	}()
	err = cmd.Wait()
	close(ended)
	signal.Stop(stop)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		if code = exit.ExitCode(); code < 0 {
			code = 1
		}
		return code, nil
	}
	return 0, err
}

// furnish prepares the namespace: the loopback interface, a /proc that shows the processes in here, a directory in
// memory, and a resolv.conf that names our resolver, seen by this process and its descendants only.
func furnish() error {
	// Not everyone has the directories of the system's own commands in the path.
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	private := uintptr(syscall.MS_REC | syscall.MS_PRIVATE)
	if err := syscall.Mount("none", "/", "", private, ""); err != nil {
		return fmt.Errorf("mount: keep changes private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// In memory: Postfix syncs every message to disk several times, which says nothing about a policy server.
	if err := syscall.Mount("tmpfs", Dir(), "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount %s: %w", Dir(), err)
	}
	conf := filepath.Join(Dir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte(resolvConf()), 0o644); err != nil {
		return err
	}
	if err := syscall.Mount(conf, "/etc/resolv.conf", "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount /etc/resolv.conf: %w", err)
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("set the loopback interface up: %w", err)
	}
	return nil
}

// loopbackUp is "ip link set lo up" without ip(8), so that the demonstration needs no more than Postfix and Unbound
// (netdevice(7)).
func loopbackUp() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	var request struct { // struct ifreq
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], "lo")
	request.flags = syscall.IFF_UP | syscall.IFF_RUNNING
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return errno
	}
	return nil
}

// resolvConf is the resolv.conf of the namespace.
func resolvConf() string { return "nameserver " + ResolverAddr + "\n" }
