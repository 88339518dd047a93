package doctor

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"stsmap/postfix/postconf"
)

// An errand is an inspection as another user and in another root. A process
// cannot change back, so each inspection is a process of its own.
type errand struct {
	Directory string   // where it stands, absolute
	Chroot    bool     // whether that becomes its root
	UID, GID  int      // the user; without other groups, like the programs of Postfix
	Dial      []string // addresses to ask, each with a map name after a blank
	Authority string   // a directory of certificates to count; empty: none
	Write     string   // a directory that it would like to write to; empty: none
}

// A report is what was seen.
type report struct {
	Dialled     []trouble // of each of Dial
	Authorities int       // certificates that OpenSSL would find
	Directory   trouble   // with the directory of certificates
	Write       trouble   // with writing; nothing is written
}

// A trouble is an error that has come from another process; the zero value is
// none.
type trouble struct {
	Text  string
	Errno syscall.Errno // 0 if it is no error of the system
}

func troubleOf(err error) trouble {
	if err == nil {
		return trouble{}
	}
	errno, _ := errors.AsType[syscall.Errno](err)
	return trouble{reason(err), errno}
}

// errNotRoot is why an errand cannot be run.
var errNotRoot = errors.New("not root")

// send runs an errand.
func (e *exam) send(ctx context.Context, task errand) (seen report, err error) {
	if os.Geteuid() != 0 && (task.Chroot || task.UID != os.Geteuid()) {
		return seen, errNotRoot
	}
	text, err := json.Marshal(task)
	if err != nil {
		return seen, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*askLimit)
	defer cancel()
	var out, complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, e.Program, e.Look...)
	cmd.Args[0] = "stsmap" // whatever the file is called
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(text), &out, &complaint
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return seen, fmt.Errorf("cannot look as another user: %w: %.200s", err, complaint.String())
	}
	return seen, json.Unmarshal(out.Bytes(), &seen)
}

// Look does in this process what Examine wants to see as another user: it reads
// from r what that is, gives up its rights for good, and writes what it saw to w.
// The process should end afterwards.
func Look(ctx context.Context, r io.Reader, w io.Writer) error {
	var task errand
	if err := json.NewDecoder(r).Decode(&task); err != nil {
		return err
	}
	if err := task.become(); err != nil {
		return err
	}
	var seen report
	for _, d := range task.Dial {
		address, name, _ := strings.Cut(d, " ")
		once, cancel := context.WithTimeout(ctx, askLimit)
		_, err := ask(once, address, name, noDomain)
		cancel()
		seen.Dialled = append(seen.Dialled, troubleOf(err))
	}
	if task.Authority != "" {
		n, err := countHashed(task.Authority)
		seen.Authorities, seen.Directory = n, troubleOf(err)
	}
	if task.Write != "" {
		const writable, enter = 2, 1 // W_OK, X_OK
		if err := syscall.Access(task.Write, writable|enter); err != nil {
			seen.Write = troubleOf(&os.PathError{Op: "write", Path: task.Write, Err: err})
		}
	}
	return json.NewEncoder(w).Encode(seen)
}

// become changes the directory, root and user of this process to those of t.
func (t errand) become() error {
	if err := os.Chdir(t.Directory); err != nil {
		return err
	}
	if t.Chroot {
		if err := syscall.Chroot("."); err != nil {
			return err
		}
		if err := os.Chdir("/"); err != nil {
			return err
		}
	}
	if t.UID == os.Geteuid() {
		return nil
	}
	if err := syscall.Setgroups([]int{t.GID}); err != nil {
		return err
	}
	if err := syscall.Setgid(t.GID); err != nil {
		return err
	}
	return syscall.Setuid(t.UID)
}

// maxFiles bounds the files of a directory that are looked at, and largestFile
// how much of one is read, in bytes.
const (
	maxFiles    = 8192
	largestFile = 16 << 20
)

// countHashed counts the files of a directory that OpenSSL would find there: a
// certificate is looked for under the hash of its name (openssl-rehash(1)).
func countHashed(dir string) (n int, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	names, err := f.Readdirnames(maxFiles)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	hash := regexp.MustCompile(`^[0-9a-f]{8}\.[0-9]+$`)
	for _, name := range names {
		if !hash.MatchString(name) {
			continue
		}
		if some, err := countCertificates(filepath.Join(dir, name)); err == nil && some > 0 {
			n++
		}
	}
	return n, nil
}

// countCertificates counts those in a file.
func countCertificates(path string) (n int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return 0, errors.Join(err, errors.New("not a file"))
	}
	text, err := io.ReadAll(io.LimitReader(f, largestFile))
	if err != nil {
		return 0, err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if !strings.HasSuffix(block.Type, "CERTIFICATE") {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err == nil {
			n++
		}
	}
	return n, nil
}

// An account is a user of this machine.
type account struct {
	name     string
	uid, gid int
}

// owner returns the user of Postfix's programs.
func owner(s *postconf.Setup) (account, error) {
	name, _ := s.Main("mail_owner")
	return lookUp(name)
}

func lookUp(name string) (account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return account{}, err
	}
	uid, errUID := strconv.Atoi(u.Uid)
	gid, errGID := strconv.Atoi(u.Gid)
	return account{name, uid, gid}, errors.Join(errUID, errGID)
}

// runsAs returns the user of a service.
func runsAs(s *postconf.Setup, service postconf.Service) (account, error) {
	if service.Root {
		return account{name: "root"}, nil
	}
	return owner(s)
}
