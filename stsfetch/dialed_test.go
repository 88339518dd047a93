package stsfetch

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
)

// dialedAddrs collects what WithDialed reports.
type dialedAddrs struct {
	mu    sync.Mutex
	addrs []string
}

func (d *dialedAddrs) add(addr netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addrs = append(d.addrs, addr.String())
}

// TestDialed: each address is reported before it is dialed, and none that is not.
func TestDialed(t *testing.T) {
	for _, c := range []struct {
		name, addrs, down, want string
	}{
		{name: "one", addrs: "9.9.9.1", want: "9.9.9.1"},
		{name: "two that refuse", addrs: "9.9.9.1 2620:fe::1", down: "9.9.9.1 2620:fe::1", want: "2620:fe::1 9.9.9.1"},
		{name: "private", addrs: "10.0.0.1 127.0.0.1"},
		{name: "private and public", addrs: "10.0.0.1 9.9.9.1", want: "9.9.9.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, addressWorld(c.addrs, c.down))
			var d dialedAddrs
			f := w.fetcher(t, Config{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
				host, _, _ := net.SplitHostPort(addr)
				d.mu.Lock()
				reported := slices.Contains(d.addrs, host)
				d.mu.Unlock()
				if !reported {
					t.Errorf("%s is dialed and not yet reported", host)
				}
				return w.dial(ctx, network, addr)
			}})
			_, _, _ = f.Policy(WithDialed(t.Context(), d.add), "example.com")
			if got := strings.Join(d.addrs, " "); got != c.want {
				t.Errorf("reported %q, want %q", got, c.want)
			}
			// Without the hook, or with a nil one, a fetch is as ever.
			f = w.fetcher(t, Config{})
			_, _, without := f.Policy(t.Context(), "example.com")
			_, _, withNil := f.Policy(WithDialed(t.Context(), nil), "example.com")
			if (without == nil) != (withNil == nil) {
				t.Errorf("without the hook %v, with a nil one %v", without, withNil)
			}
		})
	}
}

// TestDialedDuring: the address is known while the fetch is under way, here one
// whose host accepts and says nothing.
func TestDialedDuring(t *testing.T) {
	w := newWorld(t, hostWorld("stall=accept"))
	f := w.fetcher(t, Config{AllowPrivate: loopback()})
	ctx, cancel := context.WithCancel(t.Context())
	dialed := make(chan netip.Addr, 1)
	ended := make(chan error)
	go func() {
		_, _, err := f.Policy(WithDialed(ctx, func(a netip.Addr) { dialed <- a }), "example.com")
		ended <- err
	}()
	if a := <-dialed; a.String() != "127.0.0.2" {
		t.Errorf("dialed %v", a)
	}
	cancel()
	if _, ok := errors.AsType[*Error](<-ended); !ok {
		t.Error("the fetch succeeded")
	}
}

// TestDialedProbe: Probe reports all addresses.
func TestDialedProbe(t *testing.T) {
	w := newWorld(t, addressWorld("9.9.9.1 9.9.9.2", "9.9.9.2"))
	var d dialedAddrs
	if _, err := w.fetcher(t, Config{}).Probe(WithDialed(t.Context(), d.add), "example.com"); err != nil {
		t.Fatal(err)
	}
	if slices.Sort(d.addrs); !slices.Equal(d.addrs, []string{"9.9.9.1", "9.9.9.2"}) {
		t.Errorf("reported %q", d.addrs)
	}
}

// TestDialedProxy: through a proxy no address is reported, not even its own.
func TestDialedProxy(t *testing.T) {
	w := newWorld(t, hostWorld("policy=p"))
	p := newProxy(t, &proxy{world: w}, nil)
	var d dialedAddrs
	f := w.fetcher(t, Config{Proxy: "http://" + p.addr})
	if _, _, err := f.Policy(WithDialed(t.Context(), d.add), "example.com"); err != nil || len(d.addrs) > 0 {
		t.Errorf("reported %q, %v", d.addrs, err)
	}
}
