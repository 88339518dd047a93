package fakenet

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// open starts a world that ends with the test.
func open(t *testing.T, description string) *Net {
	t.Helper()
	n, err := Start(description, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

// TestCloseEndsAll keeps every kind of connection busy. It is not parallel, so that the goroutines left
// over could only be its own.
func TestCloseEndsAll(t *testing.T) {
	n, err := Start(`
-- dns --
a.example. A 192.0.2.1
!delay 1h a.example
-- https --
mta-sts.a.example addr=127.0.0.2 stall=accept
mta-sts.b.example addr=127.0.0.3 stall=headers policy=b
-- policy/b --
x
-- smtp --
mx.a.example addr=127.0.0.4
`, Options{})
	if err != nil {
		t.Fatal(err)
	}
	query := new(dns.Msg).SetQuestion("a.example.", dns.TypeA)
	packet, err := query.Pack()
	if err != nil {
		t.Fatal(err)
	}
	udp := dial(t, "udp", n.DNSAddr())
	send(t, udp, packet)
	send(t, dial(t, "tcp", n.DNSAddr()), append([]byte{0, byte(len(packet))}, packet...))
	for n.Queries("a.example", "A") < 2 {
		time.Sleep(time.Millisecond)
	}
	ends := []net.Conn{
		dial(t, "tcp", n.HTTPSAddr("mta-sts.a.example")),
		dial(t, "tcp", n.HTTPSAddr("mta-sts.b.example")),
		dial(t, "tcp", n.SMTPAddr("mx.a.example")),
	}
	greeting := make([]byte, 4)
	if _, err := io.ReadFull(ends[2], greeting); err != nil || string(greeting) != "220 " {
		t.Fatalf("greeting %q, %v", greeting, err)
	}
	n.Close()
	n.Close() // a second time does no harm
	for _, c := range ends {
		if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("connection after Close: %v", err)
		}
	}
	var stacks bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&stacks, 2); err != nil {
		t.Fatal(err)
	}
	for stack := range strings.SplitSeq(stacks.String(), "\n\n") {
		if strings.Contains(stack, "fakenet.(*") && !strings.Contains(stack, "TestCloseEndsAll") {
			t.Errorf("still running after Close:\n%s", stack)
		}
	}
	if err := n.Update(""); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Update after Close: %v", err)
	}
}

func dial(t *testing.T, network, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c
}

func send(t *testing.T, c net.Conn, data []byte) {
	t.Helper()
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
}

// TestUpdate replaces the world: what stays keeps its port and connections, what goes is closed, and an
// error changes nothing.
func TestUpdate(t *testing.T) {
	t.Parallel()
	n := open(t, `
-- dns --
a.example. A 192.0.2.1
-- smtp --
mx1.example.com addr=127.0.0.2
mx2.example.com addr=127.0.0.3
`)
	stays, goes := dial(t, "tcp", n.SMTPAddr("mx1.example.com")), dial(t, "tcp", n.SMTPAddr("mx2.example.com"))
	for _, c := range []net.Conn{stays, goes} {
		if line := readText(t, c); !strings.HasPrefix(line, "220 mx") {
			t.Fatalf("greeting %q", line)
		}
	}
	before := n.SMTPAddr("mx1.example.com")
	if err := n.Update("-- nonsense --\n"); err == nil {
		t.Fatal("Update took nonsense")
	}
	if got := ask(t, n, "udp", "a.example.", dns.TypeA); got.Rcode != dns.RcodeSuccess {
		t.Errorf("after a bad Update: %v", got)
	}
	if err := n.Update("-- smtp --\nmx3.example.com addr=127.0.0.2\n"); err != nil {
		t.Fatal(err)
	}
	if after := n.SMTPAddr("mx3.example.com"); after != before {
		t.Errorf("listener moved from %s to %s", before, after)
	}
	if got := ask(t, n, "udp", "a.example.", dns.TypeA); got.Rcode != dns.RcodeNameError {
		t.Errorf("record of the old world: %v", got)
	}
	send(t, stays, []byte("NOOP\r\n"))
	if line := readText(t, stays); !strings.HasPrefix(line, "250 ") {
		t.Errorf("session that stays: %q", line)
	}
	if _, err := io.Copy(io.Discard, goes); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("session that goes: %v", err)
	}
	if line := readText(t, dial(t, "tcp", before)); !strings.HasPrefix(line, "220 mx3.example.com") {
		t.Errorf("new greeting %q", line)
	}
}

func readText(t *testing.T, c net.Conn) string {
	t.Helper()
	buf := make([]byte, 64<<10)
	size, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:size])
}

// TestDial reaches hosts by the addresses of the world, also those that this machine does not have.
func TestDial(t *testing.T) {
	t.Parallel()
	n := open(t, `
-- https --
mta-sts.example.com addr=198.51.100.7
mta-sts.example.net addr=2001:db8::7
down.example.com addr=198.51.100.8 down
-- smtp --
mx.example.com addr=198.51.100.9
`)
	for _, addr := range []string{"198.51.100.7:443", "[2001:db8::7]:443", "[::ffff:198.51.100.7]:443", "198.51.100.9:25", n.DNSAddr()} {
		network := "tcp4"
		if netip.MustParseAddrPort(addr).Addr().Is6() {
			network = "tcp6"
		}
		c, err := n.Dial(t.Context(), network, addr)
		if err != nil {
			t.Errorf("%s: %v", addr, err)
			continue
		}
		c.Close()
	}
	if _, err := n.Dial(t.Context(), "tcp", "198.51.100.8:443"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("host that is down: %v", err)
	}
}

// TestDir finds the certificate that is written down.
func TestDir(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new")
	n, err := Start("", Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	pem, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil || !bytes.Equal(pem, n.CAPEM()) {
		t.Errorf("ca.pem: %v\n%s", err, pem)
	}
}
