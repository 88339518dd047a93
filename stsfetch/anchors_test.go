package stsfetch

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// pemOf returns certificates as PEM.
func pemOf(all ...*authority) string {
	var b strings.Builder
	for _, a := range all {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
	}
	return b.String()
}

// unreadable returns root as PEM, with a negative serial number.
func unreadable(t *testing.T, root *authority) string {
	t.Helper()
	der := bytes.Clone(root.cert.Raw)
	serial := root.cert.SerialNumber.Bytes()
	at := bytes.Index(der, append([]byte{2, byte(len(serial))}, serial...))
	if at < 0 {
		t.Fatal("no serial number found")
	}
	der[at+2] |= 0x80
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// readings collects what anchors report.
type readings struct {
	mu  sync.Mutex
	all []AnchorsRead
}

func (r *readings) add(read AnchorsRead) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, read)
}

// replace replaces a file as a package manager does.
func replace(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// due has the next Pool compare the files.
func (a *Anchors) due() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.checked = time.Time{}
}

// A trustTest checks which authorities anchors trust.
type trustTest struct {
	*testing.T
	anchors *Anchors
}

// trusts fails unless a fetch from a host with a certificate of root is trusted or not.
func (t trustTest) trusts(when string, root *authority, trusted bool) {
	t.Helper()
	f := fetcherTo(t.T, serveTLS(t.T, root.serverConfig(t.T)), root.cert)
	f.anchors = t.anchors
	step, text := StepHTTP, "malformed response"
	if !trusted {
		step, text = StepCert, `unknown issuer "`+root.cert.Subject.CommonName
	}
	if want(t.T, fetch(t.T, f), step, text); t.Failed() {
		t.Fatal(when)
	}
}

// TestSystemAnchors: a change of the bundle or a reload brings new anchors into force
// and removes old ones.
func TestSystemAnchors(t *testing.T) {
	var none *authority
	first, second := none.issue(t, "First Root", "", nil), none.issue(t, "Second Root", "", nil)
	bundle := filepath.Join(t.TempDir(), "bundle.pem")
	t.Setenv("SSL_CERT_FILE", bundle)
	t.Setenv("SSL_CERT_DIR", t.TempDir())
	replace(t, bundle, pemOf(first))
	s := trustTest{t, SystemAnchors(nil)}
	s.trusts("at first", first, true)
	s.trusts("at first", second, false)

	replace(t, bundle, pemOf(second))
	s.anchors.due()
	s.trusts("after a change", second, true)
	s.trusts("after a change", first, false)

	replace(t, bundle, pemOf(first, second))
	if read := s.anchors.Reload(); read.Err != nil || read.Count != 2 {
		t.Fatalf("after a reload: %+v", read)
	}
	s.trusts("after a reload", first, true)
}

// TestSystemAnchorsDamaged: a bundle that is empty, damaged or missing changes nothing,
// and is reported once; so is the end of that.
func TestSystemAnchorsDamaged(t *testing.T) {
	var none *authority
	first, second := none.issue(t, "First Root", "", nil), none.issue(t, "Second Root", "", nil)
	bundle := filepath.Join(t.TempDir(), "bundle.pem")
	t.Setenv("SSL_CERT_FILE", bundle)
	t.Setenv("SSL_CERT_DIR", t.TempDir())
	replace(t, bundle, pemOf(first, second))
	var reports readings
	s := trustTest{t, SystemAnchors(reports.add)}
	s.trusts("at first", first, true)
	if len(reports.all) != 1 || reports.all[0].Err != nil || reports.all[0].Count != 2 {
		t.Errorf("reported %+v", reports.all)
	}
	reports.all = nil
	for _, damage := range []func(){
		func() { replace(t, bundle, "") },
		func() { replace(t, bundle, "\n") }, // the same failure
		func() { replace(t, bundle, pemOf(first)[:100]) },
		func() { _ = os.Remove(bundle) },
	} {
		damage()
		for range 2 {
			s.anchors.due()
			s.trusts("after damage", first, true)
			if read := s.anchors.Reload(); read.Err == nil || read.Count != 2 {
				t.Errorf("after damage: %+v", read)
			}
		}
	}
	if len(reports.all) != 3 {
		t.Errorf("%d reports, want 3: %v", len(reports.all), reports.all)
	}
	for _, read := range reports.all {
		if read.Err == nil || !strings.Contains(read.Err.Error(), bundle) || read.Count != 2 {
			t.Errorf("reported %+v", read)
		}
	}
	replace(t, bundle, pemOf(second))
	s.anchors.due()
	s.trusts("after the damage", second, true)
	if last := reports.all[len(reports.all)-1]; last.Err != nil || last.Count != 1 {
		t.Errorf("reported %+v", last)
	}
}

// TestSystemAnchorsDirectory: a directory counts beside the bundle and without one, and
// links within it count once.
func TestSystemAnchorsDirectory(t *testing.T) {
	var none *authority
	first, second := none.issue(t, "First Root", "", nil), none.issue(t, "Second Root", "", nil)
	dir := t.TempDir()
	bundle := filepath.Join(t.TempDir(), "bundle.pem")
	t.Setenv("SSL_CERT_FILE", bundle)
	t.Setenv("SSL_CERT_DIR", dir+":/nowhere")
	anchors := SystemAnchors(nil)
	if read := anchors.Reload(); read.Err == nil || read.Count != 0 {
		t.Errorf("without any: %+v", read)
	}
	f := fetcherTo(t, serveTLS(t, first.serverConfig(t)), first.cert)
	f.anchors = anchors
	want(t, fetch(t, f), StepCert, "this host has no trust anchors")
	replace(t, filepath.Join(dir, "second.pem"), pemOf(second))
	for _, link := range []struct{ target, name string }{{"second.pem", "00000000.0"}, {"/dev/zero", "zero.pem"}} {
		if err := os.Symlink(link.target, filepath.Join(dir, link.name)); err != nil {
			t.Fatal(err)
		}
	}
	if read := anchors.Reload(); read.Err != nil || read.Count != 1 {
		t.Errorf("from the directory: %+v", read)
	}
	replace(t, bundle, pemOf(first, second))
	if read := anchors.Reload(); read.Err != nil || read.Count != 2 {
		t.Errorf("from both: %+v", read)
	}
	// A part of the bundle's certificates is not enough.
	if err := os.Remove(bundle); err != nil {
		t.Fatal(err)
	}
	if read := anchors.Reload(); read.Err == nil || read.Count != 2 {
		t.Errorf("without the bundle: %+v", read)
	}
}

// TestFileAnchors: each certificate that cannot be read is named, and the others are
// used.
func TestFileAnchors(t *testing.T) {
	var none *authority
	first, second := none.issue(t, "First Root", "", nil), none.issue(t, "Second Root", "", nil)
	path := filepath.Join(t.TempDir(), "ca.pem")
	for _, c := range []struct {
		name, text string
		count      int
		skipped    string
		err        string
	}{
		{"good", "# ours\n" + pemOf(first, second), 2, "", ""},
		{"twice", pemOf(first, first), 1, "", ""},
		{"one bad", pemOf(first) + unreadable(t, second) + pemOf(second), 2, "certificate 2: negative serial number", ""},
		{"cut", pemOf(first) + pemOf(second)[:200] + "\n" + pemOf(second), 2, "certificate 2: not PEM", ""},
		{"not base64", pemBegin + "\n???\n-----END CERTIFICATE-----\n" + pemOf(first), 1, "certificate 1: not PEM", ""},
		{"not DER", pemOf(first) + pemBegin + "\nAAAA\n-----END CERTIFICATE-----\n", 1, "certificate 2: malformed certificate", ""},
		{"all bad", unreadable(t, first), 0, "", "no certificate in it can be used: certificate 1: negative serial number"},
		{"empty", "", 0, "", "no certificate in it; PEM is needed"},
	} {
		replace(t, path, c.text)
		var reports readings
		anchors, err := FileAnchors(path, reports.add)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) || len(reports.all) > 0 {
				t.Errorf("%s: %v, reported %v, want %s", c.name, err, reports.all, c.err)
			}
			continue
		}
		if err != nil || len(reports.all) != 1 {
			t.Errorf("%s: %v, %d reports", c.name, err, len(reports.all))
			continue
		}
		read := reports.all[0]
		var skipped []string
		for _, err := range read.Skipped {
			skipped = append(skipped, err.Error())
		}
		if got := strings.Join(skipped, "; "); got != c.skipped || read.Count != c.count || read.Err != nil {
			t.Errorf("%s: %+v, want %d certificates, skipped %q", c.name, read, c.count, c.skipped)
		}
		// Later damage changes nothing.
		replace(t, path, "")
		anchors.due()
		pool := anchors.Pool()
		if last := reports.all[len(reports.all)-1]; last.Err == nil || last.Count != c.count || pool == nil || anchors.empty() {
			t.Errorf("%s: after damage %+v", c.name, last)
		}
	}
	if _, err := FileAnchors("/nowhere/ca.pem", nil); !os.IsNotExist(err) {
		t.Errorf("missing file: %v", err)
	}
}

// TestAnchorsConcurrently: many fetches and reloads use anchors at the same time.
func TestAnchorsConcurrently(t *testing.T) {
	var none *authority
	bundle := filepath.Join(t.TempDir(), "bundle.pem")
	t.Setenv("SSL_CERT_FILE", bundle)
	t.Setenv("SSL_CERT_DIR", t.TempDir())
	replace(t, bundle, pemOf(none.issue(t, "First Root", "", nil)))
	anchors := SystemAnchors(nil)
	var uses sync.WaitGroup
	for range 20 {
		uses.Go(func() {
			anchors.due()
			if anchors.Pool() == nil || anchors.empty() {
				t.Error("no anchors")
			}
		})
		uses.Go(func() {
			if read := anchors.Reload(); read.Err != nil || read.Count != 1 {
				t.Errorf("%+v", read)
			}
		})
	}
	uses.Wait()
}
