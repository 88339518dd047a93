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
	"slices"
	"strings"
	"syscall"
)

// signer is where Knot DNS listens.
const signer = "127.0.0.55:53"

// nameServer is what the NS records of all zones name. Its address is in the root zone.
const nameServer = "ns.fakenet."

//go:embed knot.conf
var knotConf string

// A Zone is one that Knot is to serve, delegated by the root.
type Zone struct {
	Name   string // without the final dot
	Signed bool   // and the root has its DS record
	Text   string // a master file with the zone as origin and a TTL of 1 s, without SOA and NS records of the zone
}

// Knot is a running Knot DNS: the authority for some zones, and for a signed root that delegates them. It is used by
// one goroutine at a time.
type Knot struct {
	Log    Log
	conf   string
	dir    string
	cmd    *exec.Cmd
	zones  []Zone
	ds     map[string]string // the DS record of each signed zone, and of the root as "."
	broken map[string]bool   // zones whose DS record in the root is wrong
	serial int
}

// StartKnot starts Knot DNS with new keys, and returns when it serves the zones. Dir is for everything it writes, and
// exists.
func StartKnot(ctx context.Context, dir string, zones []Zone) (*Knot, error) {
	k := &Knot{
		Log:    Log(filepath.Join(dir, "knot.log")),
		conf:   filepath.Join(dir, "knot.conf"),
		dir:    dir,
		zones:  slices.Clone(zones),
		ds:     make(map[string]string),
		broken: make(map[string]bool),
		serial: 1,
	}
	if err := k.configure(); err != nil {
		return nil, err
	}
	if err := k.makeKeys(); err != nil {
		return nil, err
	}
	names := []string{"."} // whose DS records have to be known by now
	for _, z := range k.zones {
		names = append(names, z.Name)
	}
	for _, name := range names {
		if err := k.write(name); err != nil {
			return nil, err
		}
	}
	k.cmd = exec.Command("knotd", "-c", k.conf)
	if err := k.cmd.Start(); err != nil {
		return nil, err
	}
	for {
		_, err := k.control("status")
		if err == nil {
			break
		}
		if pause(ctx) != nil {
			return nil, errors.Join(fmt.Errorf("knotd does not answer: %w: %s", err, k.Log.Since(0)), k.Stop())
		}
	}
	// It opens its control socket after it has loaded all zones, as far as they can be loaded.
	for _, name := range names {
		if err := k.serves(name); err != nil {
			return nil, errors.Join(err, k.Stop())
		}
	}
	return k, nil
}

// TrustAnchor returns the DS record of the root.
func (k *Knot) TrustAnchor() string { return k.ds["."] }

// Zones returns the zones as they are now.
func (k *Knot) Zones() []Zone { return slices.Clone(k.zones) }

// Replace gives a zone another text, and returns when that is served, signed anew.
func (k *Knot) Replace(name, text string) error {
	i := k.index(name)
	if i < 0 {
		return fmt.Errorf("no such zone: %s", name)
	}
	k.zones[i].Text = text
	return k.reload(name)
}

// Break makes the DS record of a zone in the root wrong, so that nothing in the zone can be validated; with broken
// false it is right again. It returns when that is served.
func (k *Knot) Break(name string, broken bool) error {
	if k.ds[name] == "" || name == "." {
		return fmt.Errorf("no such signed zone: %s", name)
	}
	if k.broken[name] == broken {
		return fmt.Errorf("%s is in that state already", name)
	}
	k.broken[name] = broken
	return k.reload(".")
}

// Stop ends Knot, and returns when it has ended.
func (k *Knot) Stop() error {
	k.cmd.Process.Signal(syscall.SIGTERM)
	if err := k.cmd.Wait(); err != nil {
		return fmt.Errorf("knotd ended with %w: %s", err, k.Log.Since(0))
	}
	return nil
}

func (k *Knot) index(name string) int {
	return slices.IndexFunc(k.zones, func(z Zone) bool { return z.Name == name })
}

func (k *Knot) file(name string) string {
	if name == "." {
		name = "root"
	}
	return filepath.Join(k.dir, name+".zone")
}

// configure writes the configuration.
func (k *Knot) configure() error {
	addr := netip.MustParseAddrPort(signer)
	var text strings.Builder
	text.WriteString(strings.NewReplacer(
		"@DIR@", k.dir,
		"@ADDR@", fmt.Sprintf("%s@%d", addr.Addr(), addr.Port()),
	).Replace(knotConf))
	for _, z := range append([]Zone{{Name: ".", Signed: true}}, k.zones...) {
		fmt.Fprintf(&text, "  - domain: %q\n    file: %q\n", z.Name, k.file(z.Name))
		if z.Signed {
			text.WriteString("    dnssec-signing: on\n    dnssec-policy: signed\n")
		}
	}
	return os.WriteFile(k.conf, []byte(text.String()), 0o644)
}

// makeKeys makes one key for each signed zone. Knot would do it by itself, but only when it has loaded the zone, and
// the root needs the DS records then.
func (k *Knot) makeKeys() error {
	for _, z := range append([]Zone{{Name: ".", Signed: true}}, k.zones...) {
		if !z.Signed {
			continue
		}
		if _, err := run("keymgr", "-c", k.conf, z.Name, "generate", "algorithm=ecdsap256sha256", "ksk=yes", "zsk=yes"); err != nil {
			return err
		}
		out, err := run("keymgr", "-c", k.conf, z.Name, "ds")
		if err != nil {
			return err
		}
		// One for each kind of digest; SHA-256 is the first.
		ds, _, _ := strings.Cut(out, "\n")
		k.ds[z.Name] = ds
	}
	return nil
}

// write writes the file of a zone, or of the root.
func (k *Knot) write(name string) error {
	var text strings.Builder
	origin := "."
	if name != "." {
		origin = name + "."
	}
	// What does not exist is not to be remembered longer than what does.
	fmt.Fprintf(&text, "$ORIGIN %s\n$TTL 1\n@ SOA %s hostmaster.fakenet. %d 1800 900 604800 1\n@ NS %[2]s\n", origin, nameServer, k.serial)
	if name != "." {
		text.WriteString(k.zones[k.index(name)].Text)
		return os.WriteFile(k.file(name), []byte(text.String()), 0o644)
	}
	fmt.Fprintf(&text, "%s A %s\n", nameServer, netip.MustParseAddrPort(signer).Addr())
	for _, z := range k.zones {
		fmt.Fprintf(&text, "%s. NS %s\n", z.Name, nameServer)
		ds := k.ds[z.Name]
		if k.broken[z.Name] {
			ds = forge(ds)
		}
		fmt.Fprintln(&text, ds) // empty if not signed
	}
	return os.WriteFile(k.file(name), []byte(text.String()), 0o644)
}

// forge changes the last digit of a DS record's digest.
func forge(ds string) string {
	cut := len(ds) - 1
	if ds[cut] == '0' {
		return ds[:cut] + "1"
	}
	return ds[:cut] + "0"
}

func (k *Knot) reload(name string) error {
	k.serial++
	if err := k.write(name); err != nil {
		return err
	}
	// Without -b it would return before the zone is signed.
	if _, err := k.control("-b", "zone-reload", name); err != nil {
		return fmt.Errorf("%w: %s", err, k.Log.Since(0))
	}
	return k.serves(name)
}

// serves makes sure that what was written last for a zone is what is served: Knot goes on with the old one, or with
// none, where a file has a mistake.
func (k *Knot) serves(name string) error {
	out, err := k.control("zone-read", name, "@", "SOA")
	if err == nil && !strings.Contains(out, fmt.Sprintf(" %d 1800 ", k.serial)) {
		err = fmt.Errorf("it serves %s", out)
	}
	if err != nil {
		text, _ := os.ReadFile(k.file(name))
		return fmt.Errorf("knotd has not loaded %s: %w: %s\n%s", name, err, strings.Join(k.Log.Since(0), "\n"), text)
	}
	return nil
}

func (k *Knot) control(args ...string) (string, error) {
	return run("knotc", append([]string{"-s", filepath.Join(k.dir, "knot.sock")}, args...)...)
}

// run runs a command, and returns what it has printed.
func run(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, text)
	}
	return text, nil
}
