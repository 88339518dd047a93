package site

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// cacheVariable names the folder in which roots are kept, if not the usual one is wanted.
const cacheVariable = "E2E_CACHE"

// defaultMirror has Debian where apt-get names none, as on a descendant of Debian.
const defaultMirror = "http://deb.debian.org/debian"

// A Root is a directory tree with the Postfix of a Debian release in it. What a Postfix needs is there, which is much
// less than a system: nothing but the commands below can be expected to work.
type Root struct {
	suite   string
	options []string // of mmdebstrap(1)
	dir     string   // in the cache, where nothing writes to it any more
}

// MakeRoot returns the root of a release, such as "trixie", made from the Debian mirror of this machine unless there
// is one in the cache. It needs a network, so that it is to be called before Inside the first time, and finds what it
// made when it is called inside. It may be called by several processes at once.
//
// The cache is the directory that E2E_CACHE names, or else stsmap-e2e in that of the user. A root in it is used as
// long as the recipe is the same, however old it is; remove it to have a newer one.
func MakeRoot(ctx context.Context, suite string) (*Root, error) {
	return makeRoot(ctx, &Root{suite: suite, options: extracted()}, suite)
}

// MakeSystem is as MakeRoot for a tree that systemd-nspawn(1) can boot, with Postfix, Unbound and Redis installed as
// their packages do it. It is a system of its own: for Layer, not for Mount.
func MakeSystem(ctx context.Context, suite string) (*Root, error) {
	return makeRoot(ctx, &Root{suite: suite, options: installed()}, "system-"+suite)
}

// makeRoot makes r in the folder name of the cache, unless it is there.
func makeRoot(ctx context.Context, r *Root, name string) (*Root, error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.Open(cache)
	if err != nil {
		return nil, err
	}
	defer lock.Close() // unlocks
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", cache, err)
	}
	r.dir = filepath.Join(cache, name)
	if made, err := os.ReadFile(r.stamp()); err == nil && string(made) == r.recipe() {
		return r, nil
	}
	if err := r.make(ctx); err != nil {
		return nil, fmt.Errorf("root of %s: %w", r.suite, err)
	}
	return r, nil
}

// cacheDir returns an absolute path: mounts must not depend on the working directory.
func cacheDir() (string, error) {
	if dir := os.Getenv(cacheVariable); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil { // a service has no home
		dir = "/var/cache"
	}
	return filepath.Join(dir, "stsmap-e2e"), nil
}

// extracted are the options of a root that holds a Postfix.
//
// The variant unpacks packages and runs nothing of them: no service can start, no script fails in a release that is
// still being made, and no privilege is needed but root's own. It takes a quarter of the time of the variant
// "essential", and lacks only what the scripts would have written: users, and a main.cf that is not used.
//
// Where nothing is configured the tools are not there unless they are named. These are what "postfix start" uses,
// Perl among them since Debian 13; base-files has the links /bin, /lib and /sbin.
func extracted() []string {
	return []string{
		"--mode=root",
		"--variant=extract",
		"--format=directory",
		"--include=postfix,base-files,coreutils,dash,findutils,grep,perl-base,sed",
		// The Release file of testing is not renewed every week.
		`--aptopt=Acquire::Check-Valid-Until "false"`,
	}
}

// installed are the options of a root that boots. It is small, and has what the tests look at it with. mmdebstrap keeps
// services from being started.
func installed() []string {
	return []string{
		"--mode=root",
		"--variant=minbase",
		"--format=directory",
		"--include=systemd,systemd-sysv,dbus,udev,procps,ca-certificates,postfix,unbound,redis-server",
		// Its package says "all", and addresses of loopback are of mail exchangers there.
		`--customize-hook=chroot "$1" postconf -e inet_interfaces=127.0.0.1`,
		// A test that needs it starts it.
		`--customize-hook=chroot "$1" systemctl disable redis-server.service`,
	}
}

// recipe is what the stamp says of a root that was made as it would be made now.
func (r *Root) recipe() string {
	return "mmdebstrap " + strings.Join(r.options, " ") + " " + r.suite + "\n"
}

func (r *Root) stamp() string { return filepath.Join(r.dir, "recipe") }

// make builds the tree beside its place, so that there is only ever a complete one.
func (r *Root) make(ctx context.Context) error {
	// The lock is ours: whatever has such a name was left behind by a process that was killed.
	left, err := filepath.Glob(r.dir + ".new-*")
	if err != nil {
		return err
	}
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp(filepath.Dir(r.dir), filepath.Base(r.dir)+".new-")
	if err != nil {
		return err
	}
	args := append(slices.Clone(r.options), r.suite, dir, mirror(ctx))
	out, err := exec.CommandContext(ctx, "mmdebstrap", args...).CombinedOutput()
	if err != nil {
		return errors.Join(fmt.Errorf("mmdebstrap: %w: %s", err, out), os.RemoveAll(dir))
	}
	if err := os.Chmod(dir, 0o755); err != nil { // Postfix leaves root behind
		return err
	}
	next := *r
	next.dir = dir
	if err := os.WriteFile(next.stamp(), []byte(r.recipe()), 0o644); err != nil {
		return err
	}
	if err := os.RemoveAll(r.dir); err != nil { // made by another recipe
		return err
	}
	return os.Rename(dir, r.dir)
}

// mirror returns where apt-get gets this machine's Debian from. It is not part of the recipe, since all mirrors have
// the same.
func mirror(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		return defaultMirror
	}
	for line := range strings.Lines(string(out)) {
		// That of the security updates has another label, and no complete release.
		if uri, ok := strings.CutPrefix(strings.TrimSpace(line), "Debian Debian "); ok {
			return strings.TrimSuffix(uri, "/")
		}
	}
	return defaultMirror
}

// Mount makes the tree usable at dir, which exists and is empty, with the site in it at the same path as outside, so
// that any path of the site means the same for a process that was started by chroot(8). It is to be called in a
// namespace made by Inside, which undoes it at its end. The tree in the cache stays as it is.
//
// Users and groups are those of this machine, where Postfix has to be installed as well: files of the site have an
// owner that both know, and a queue can be handed on.
func (r *Root) Mount(dir string) error {
	if err := r.Layer(dir); err != nil {
		return err
	}
	for _, path := range []string{"/dev", "/proc", Dir()} {
		target := filepath.Join(dir, path)
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		// Not MS_REC: below Dir() is dir itself.
		if err := syscall.Mount(path, target, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", target, err)
		}
	}
	for _, path := range []string{"/etc/passwd", "/etc/group", "/etc/resolv.conf"} {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, path), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Layer puts the tree at dir, which exists and is empty, so that what is written there is kept beside dir and the tree in
// the cache stays as it is. It is to be called in a namespace made by Inside, which undoes it at its end.
func (r *Root) Layer(dir string) error {
	upper, work := dir+".upper", dir+".work"
	for _, d := range []string{upper, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	layers := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", r.dir, upper, work)
	if err := syscall.Mount("overlay", dir, "overlay", 0, layers); err != nil {
		return fmt.Errorf("mount overlay (%s): %w", layers, err)
	}
	return nil
}
