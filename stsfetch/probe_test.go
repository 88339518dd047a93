package stsfetch

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"testing"
	"time"

	"stsmap/resolver"
)

// TestProbe: each address of a policy host has a result of its own, with what was
// received before the failure.
func TestProbe(t *testing.T) {
	const description = `
-- dns --
mta-sts.example.com. CNAME web.example.net.
web.example.net. A 127.0.0.2
web.example.net. A 127.0.0.3
web.example.net. A 127.0.0.4
web.example.net. A 127.0.0.5
web.example.net. A 127.0.0.6
web.example.net. AAAA 2001:db8::7
web.example.net. A 10.0.0.1
-- https --
mta-sts.example.com addr=127.0.0.2 policy=p
mta-sts.example.com addr=127.0.0.3 down
mta-sts.example.com addr=127.0.0.4 policy=p cert=expired
mta-sts.example.com addr=127.0.0.5 policy=p tls=1.0
mta-sts.example.com addr=127.0.0.6 policy=bad
mta-sts.example.com addr=2001:db8::7 status=404 policy=p shuns=stsmap
-- policy/bad --
nonsense`
	w := newWorld(t, description)
	f := w.fetcher(t, Config{AllowPrivate: append(loopback(), netip.MustParsePrefix("2001:db8::/32"))})
	h, err := f.Probe(t.Context(), "example.com")
	if err != nil || h.Name != "mta-sts.example.com" || h.Alias != "web.example.net" || h.Proxy || len(h.Probes) != 7 {
		t.Fatalf("%+v, %v", h, err)
	}
	for i, want := range []struct {
		addr      string
		step      Step
		connected bool
		version   uint16
		certs     bool
		status    int
		text      string
	}{
		{"2001:db8::7", StepStatus, true, tls.VersionTLS13, true, 403, ""},
		{"127.0.0.2", "", true, tls.VersionTLS13, true, 200, policyText},
		{"127.0.0.3", StepConnect, false, 0, false, 0, ""},
		{"127.0.0.4", StepCert, true, 0, true, 0, ""},
		{"127.0.0.5", StepTLS, true, tls.VersionTLS10, false, 0, ""},
		{"127.0.0.6", StepSyntax, true, tls.VersionTLS13, true, 200, "nonsense\n"},
		{"10.0.0.1", StepBlocked, false, 0, false, 0, ""},
	} {
		v := h.Probes[i]
		step := Step("")
		if e, ok := errors.AsType[*Error](v.Err); ok {
			step = e.Step
		}
		if v.Addr.String() != want.addr || step != want.step || v.Connected != want.connected || v.Version != want.version ||
			len(v.Certificates) > 0 != want.certs || v.Status != want.status || v.Text != want.text || (v.Policy != nil) != (v.Err == nil) || v.Took <= 0 {
			t.Errorf("%d: %+v, want %+v", i, v, want)
		}
	}
	// Under another name it is served.
	if h, err = f.As("Mozilla/5.0").Probe(t.Context(), "example.com"); err != nil || h.Probes[0].Status != 404 {
		t.Errorf("as a browser: %+v, %v", h.Probes[0], err)
	}
}

// TestProbeNoAddress: without an address there is an error, of the usual kind.
func TestProbeNoAddress(t *testing.T) {
	w := newWorld(t, "-- dns --\n!servfail mta-sts.broken.example *\n")
	f := w.fetcher(t, Config{AllowPrivate: loopback()})
	for domain, text := range map[string]string{"none.example": "mta-sts.none.example does not exist", "broken.example": ""} {
		_, err := f.Probe(t.Context(), domain)
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Step != StepDNS || e.Domain != domain || text != "" && e.Error() != text {
			t.Errorf("%s: %#v", domain, err)
		}
		if _, dns := errors.AsType[*resolver.Error](err); dns != (text == "") {
			t.Errorf("%s: %#v", domain, err)
		}
	}
}

// TestProbeProxy: through a proxy there is one probe, without an address.
func TestProbeProxy(t *testing.T) {
	w := newWorld(t, "-- https --\nproxy.example addr=127.0.0.9 down\n")
	f := w.fetcher(t, Config{Proxy: "http://127.0.0.9:443", Timeout: 30 * time.Second})
	h, err := f.Probe(t.Context(), "example.com")
	if err != nil || !h.Proxy || len(h.Probes) != 1 || h.Probes[0].Addr.IsValid() {
		t.Fatalf("%+v, %v", h, err)
	}
	if e, ok := errors.AsType[*Error](h.Probes[0].Err); !ok || e.Step != StepConnect {
		t.Errorf("%v", h.Probes[0].Err)
	}
}
