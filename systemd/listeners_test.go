package systemd

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestListeners passes real descriptors to a process of its own, as a service
// manager does (sd_listen_fds(3)).
func TestListeners(t *testing.T) {
	dir := shortDir(t)
	tcp := opened(t, "tcp", "127.0.0.1:0")
	unix := opened(t, "unix", filepath.Join(dir, "s"))
	other := opened(t, "tcp", "127.0.0.1:0")
	for _, c := range []struct {
		name  string
		files []*os.File
		env   []string
		want  []string // lines that the child prints
	}{
		{"none", nil, nil, []string{"0 listeners", "again 0"}},
		{"one", files(t, tcp), []string{"LISTEN_FDS=1"}, []string{"1 listeners", "tcp " + tcp.Addr().String(), "again 0"}},
		{"in order", files(t, tcp, unix, other), []string{"LISTEN_FDS=3", "LISTEN_FDNAMES=a:b:c"},
			[]string{"3 listeners", "tcp " + tcp.Addr().String(), "unix " + unix.Addr().String(), "tcp " + other.Addr().String(), "again 0"}},
		{"fewer names", files(t, tcp, other), []string{"LISTEN_FDS=2", "LISTEN_FDNAMES=a"},
			[]string{"2 listeners", "tcp " + tcp.Addr().String(), "tcp " + other.Addr().String(), "again 0"}},
		{"not for this process", files(t, tcp), []string{"LISTEN_FDS=1", "NOT_MINE=1"}, []string{"0 listeners", "again 0"}},
		{"a file", []*os.File{plainFile(t)}, []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=lookup.socket"},
			[]string{`error socket "lookup.socket" passed by the service manager is not one to listen on`}},
		{"a datagram socket", []*os.File{datagram(t, "udp", "127.0.0.1:0")}, []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=x"},
			[]string{`error socket "x" passed by the service manager is not one to listen on`}},
		{"a UNIX datagram socket", []*os.File{datagram(t, "unixgram", filepath.Join(dir, "d"))}, []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=x"},
			[]string{`error socket "x" passed by the service manager is not one to listen on`}},
		{"a connection, as of Accept=yes", []*os.File{connection(t, tcp)}, []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=x"},
			[]string{`error socket "x" passed by the service manager is not one to listen on`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			lines := child(t, c.files, c.env)
			if len(lines) != len(c.want) {
				t.Fatalf("child said %q, want %q", lines, c.want)
			}
			for i, want := range c.want {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("child said %q, want %q", lines[i], want)
				}
			}
		})
	}
}

// child runs TestChild in another process, and returns what it said. The shell
// is there because only a process itself knows the number for LISTEN_PID.
func child(t *testing.T, files []*os.File, env []string) (lines []string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$; test -z "$NOT_MINE" || LISTEN_PID=1; export LISTEN_PID; exec "$0" "$@"`,
		os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(append(os.Environ(), env...), "SYSTEMD_TEST_CHILD=1")
	cmd.ExtraFiles = files
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if said, ok := strings.CutPrefix(line, "child: "); ok {
			lines = append(lines, strings.TrimSpace(said))
		}
	}
	return lines
}

// TestChild is what child runs. In the parent, where nothing is passed, it is
// the test of that.
func TestChild(t *testing.T) {
	listeners, err := Listeners()
	if os.Getenv("SYSTEMD_TEST_CHILD") == "" {
		if len(listeners) > 0 || err != nil {
			t.Errorf("outside systemd: %v, %v", listeners, err)
		}
		return
	}
	if err != nil {
		fmt.Println("child: error", err)
		return
	}
	fmt.Println("child:", len(listeners), "listeners")
	for _, l := range listeners {
		fmt.Println("child:", l.Addr().Network(), l.Addr())
		if err := visit(l); err != nil {
			t.Error(err)
		}
	}
	again, err := Listeners()
	if err != nil || os.Getenv("LISTEN_FDS") != "" || os.Getenv("LISTEN_PID") != "" || os.Getenv("LISTEN_FDNAMES") != "" {
		t.Error("the variables are still there", err)
	}
	fmt.Println("child: again", len(again))
}

// visit sees that l is really listening: a connection to its address arrives.
func visit(l net.Listener) error {
	client, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		return err
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		return err
	}
	defer server.Close()
	if _, err := io.WriteString(client, "hello\n"); err != nil {
		return err
	}
	_, err = bufio.NewReader(server).ReadString('\n')
	return err
}

// shortDir is a folder whose path leaves room for the name of a UNIX socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func opened(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// filer is what has a descriptor that can be passed on.
type filer interface{ File() (*os.File, error) }

func files(t *testing.T, listeners ...net.Listener) (out []*os.File) {
	t.Helper()
	for _, l := range listeners {
		out = append(out, file(t, l.(filer)))
	}
	return out
}

func file(t *testing.T, f filer) *os.File {
	t.Helper()
	out, err := f.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	return out
}

func plainFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func datagram(t *testing.T, network, address string) *os.File {
	t.Helper()
	c, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return file(t, c.(filer))
}

func connection(t *testing.T, l net.Listener) *os.File {
	t.Helper()
	c, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	// The other end leaves the queue of l, for the next connection.
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		other.Close()
	})
	return file(t, c.(filer))
}
