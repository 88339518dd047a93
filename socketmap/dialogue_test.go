package socketmap

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

// A dialogue is one section of a file in testdata: what a client does, and what comes of it. The lines are
//
//	# comment          the first line of every dialogue, with the clause it stands for
//	send STRING        write it at once
//	drip STRING        write it byte by byte
//	pause              wait, so that what was sent arrives on its own
//	recv STRING        read exactly that
//	hangup             end the sending direction
//	closed             the server closes the connection, without another byte
//	log TEXT           a line of the log contains it
//	quiet              the log is empty
//	malformed N, panics N, unfit N    what the server has counted
//
// where STRING is a Go string, optionally followed by another and how often to repeat that, and so on
// until the end of the line. The map names are those of obey.
type dialogue struct {
	name  string
	lines []string
}

// dialogues reads all files in testdata.
func dialogues(t testing.TB) []dialogue {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dialogues: %v", err)
	}
	var all []dialogue
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range a.Files {
			all = append(all, dialogue{f.Name, strings.Split(strings.TrimSpace(string(f.Data)), "\n")})
		}
	}
	return all
}

// expand evaluates the STRING of a line.
func expand(arg string) (string, error) {
	var out strings.Builder
	last := ""
	for arg = strings.TrimSpace(arg); arg != ""; arg = strings.TrimSpace(arg) {
		if quoted, err := strconv.QuotedPrefix(arg); err == nil {
			if last, err = strconv.Unquote(quoted); err != nil {
				return "", err
			}
			out.WriteString(last)
			arg = arg[len(quoted):]
			continue
		}
		word, rest, _ := strings.Cut(arg, " ")
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 || last == "" {
			return "", fmt.Errorf("neither a string nor a number: %s", arg)
		}
		out.WriteString(strings.Repeat(last, n-1))
		arg = rest
	}
	return out.String(), nil
}

func TestDialogues(t *testing.T) {
	for _, d := range dialogues(t) {
		for _, network := range []string{"tcp", "unix"} {
			t.Run(d.name+"/"+network, func(t *testing.T) {
				t.Parallel()
				if !strings.HasPrefix(d.lines[0], "# ") {
					t.Fatal("the first line must say what it is about")
				}
				log := new(lockedBuffer)
				s := &Server{Handler: HandlerFunc(obey), Log: logTo(log)}
				l := listen(t, network)
				start(t, s, l)
				p := &play{s: s, log: log, nc: dial(t, l)}
				for _, line := range d.lines {
					p.line(t, line)
				}
				p.finish(t)
			})
		}
	}
}

// A play is a dialogue under way.
type play struct {
	s      *Server
	log    *lockedBuffer
	nc     net.Conn
	closed bool
}

// line does what a line of a dialogue says.
func (p *play) line(t *testing.T, line string) {
	t.Helper()
	word, arg, _ := strings.Cut(line, " ")
	switch word {
	case "#", "":
	case "send", "drip", "recv":
		text, err := expand(arg)
		if err != nil || text == "" {
			t.Fatalf("%s: %v", line, err)
		}
		p.transfer(t, word, text)
	case "pause":
		time.Sleep(10 * time.Millisecond)
	case "hangup":
		p.nc.(interface{ CloseWrite() error }).CloseWrite()
	case "closed":
		p.closed = true
		recvClosed(t, p.nc)
	case "log":
		eventually(t, line, func() bool { return strings.Contains(p.log.String(), arg) })
	case "quiet":
		if got := p.log.String(); got != "" {
			t.Fatalf("log: %s", got)
		}
	case "malformed", "panics", "unfit":
		stats := p.s.Stats()
		got := map[string]uint64{"malformed": stats.Malformed, "panics": stats.Panics, "unfit": stats.Unfit}[word]
		if strconv.FormatUint(got, 10) != arg {
			t.Fatalf("%s %d, want %s", word, got, arg)
		}
	default:
		t.Fatalf("unknown line: %s", line)
	}
}

// transfer sends or receives text. An error while sending is none of the dialogue's concern: the server
// may have closed already, and then the line after this one tells.
func (p *play) transfer(t *testing.T, how, text string) {
	t.Helper()
	switch how {
	case "send":
		io.WriteString(p.nc, text)
	case "drip":
		for i := range len(text) {
			io.WriteString(p.nc, text[i:i+1])
			time.Sleep(100 * time.Microsecond)
		}
	case "recv":
		recv(t, p.nc, text)
	}
}

// finish checks that nothing follows.
func (p *play) finish(t *testing.T) {
	t.Helper()
	if !p.closed {
		p.line(t, "hangup")
		p.line(t, "closed")
	}
}
