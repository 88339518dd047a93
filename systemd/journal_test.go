package systemd

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
)

// plain returns a handler that has no journal's socket to speak to: tests must
// not write into the journal of the machine that they run on, which the
// library knows by a fixed path.
func plain(w io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(&journalHandler{level: level, fallback: w, queue: new(oneByOne).add})
}

// oneByOne is a queue that writes each line at once.
type oneByOne struct{ mu sync.Mutex }

func (q *oneByOne) add(_ int, write func() error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	_ = write()
}

// TestJournalLines: without the socket, one line a record with its priority
// (sd-daemon(3)) and without the time; nothing in a value can end it.
func TestJournalLines(t *testing.T) {
	var out bytes.Buffer
	log := plain(&out, slog.LevelDebug)
	for _, c := range []struct {
		write func()
		want  string
	}{
		{func() { log.Debug("no record") }, "<7>no record"},
		{func() { log.Info("serving", "version", "1.0") }, "<6>serving version=1.0"},
		{func() { log.Warn("w", "n", 3, "d", 90*time.Second) }, "<4>w n=3 d=1m30s"},
		{func() { log.Error("e", "error", "two words") }, `<3>e error="two words"`},
		{func() { log.Log(t.Context(), slog.LevelError+4, "above") }, "<3>above"},
		{func() { log.Log(t.Context(), slog.LevelInfo+1, "between") }, "<6>between"},
		{func() { log.Info("m", "x", "") }, `<6>m x=""`},
		{func() { log.Info("m", "x", "a=b") }, `<6>m x="a=b"`},
		{func() { log.Info("m", "x", `say "hi"`) }, `<6>m x="say \"hi\""`},
		{func() { log.Info("m", "x", "a\n<3>b") }, `<6>m x="a\n<3>b"`},
		{func() { log.Info("m", "x", "a\r\x00\x1b[31m\x7f") }, `<6>m x="a\r\x00\x1b[31m\x7f"`},
		{func() { log.Info("m", "x", "\u0085\u009b\u2028\u202e") }, `<6>m x="\u0085\u009b\u2028\u202e"`},
		{func() { log.Info("m", "x", "caf\xff") }, `<6>m x="caf\xff"`},
		{func() { log.Info("m", "x", "caf\u00e9") }, "<6>m x=caf\u00e9"},
		{func() { log.With("a", 1).With("b", "c d").Info("m", "e", "f") }, `<6>m a=1 b="c d" e=f`},
		{func() { log.WithGroup("g").With("a", 1).WithGroup("h").Info("m", "b", 2) }, "<6>m g.a=1 g.h.b=2"},
		{func() { log.Info("m", "x", valuer{}) }, `<6>m x="of a valuer"`},
	} {
		out.Reset()
		c.write()
		if got := out.String(); got != c.want+"\n" {
			t.Errorf("got %q\nwant %q", got, c.want+"\n")
		}
	}
}

type valuer struct{}

func (valuer) LogValue() slog.Value { return slog.StringValue("of a valuer") }

// TestJournalTime: the journal gets the time when a line was logged, and a line
// that waited in the queue ends with it.
func TestJournalTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		var queued []func() error
		h := &journalHandler{level: slog.LevelInfo, fallback: &out}
		h.queue = func(size int, write func() error) {
			if want := len("MESSAGE") + len("m"); size < want {
				t.Errorf("size %d", size)
			}
			queued = append(queued, write)
		}
		var sent []string
		h.send = func(message string, _ journal.Priority, fields map[string]string) error {
			sent = append(sent, message+"|"+fields["SYSLOG_TIMESTAMP"]+"|"+fields["STSMAP_DOMAIN"])
			return nil
		}
		log := slog.New(h)
		for _, delay := range []time.Duration{0, time.Hour} {
			log.Info("m", "domain", "example.com")
			time.Sleep(delay)
			for _, write := range queued {
				if err := write(); err != nil {
					t.Error(err)
				}
			}
			queued = nil
		}
		const at = "2000-01-01T00:00:00.000000Z"
		want := []string{"m domain=example.com|" + at + "|example.com", "m domain=example.com time=" + at + "|" + at + "|example.com"}
		if !slices.Equal(sent, want) {
			t.Errorf("sent %q\nwant %q", sent, want)
		}

		// Without the journal's socket, the line has what its text has.
		h.send = func(string, journal.Priority, map[string]string) error { return errors.New("no socket") }
		log.Info("m")
		time.Sleep(time.Hour)
		if err := queued[0](); err != nil || out.String() != "<6>m time=2000-01-01T01:00:00.000000Z\n" {
			t.Errorf("got %q (%v)", out.String(), err)
		}
	})
}

// TestJournalLevel: what is below the level makes no line, and the level can
// change.
func TestJournalLevel(t *testing.T) {
	var out bytes.Buffer
	var level slog.LevelVar
	log := plain(&out, &level)
	log.Debug("no")
	level.Set(slog.LevelDebug)
	log.With("a", 1).Debug("yes")
	level.Set(slog.LevelError)
	log.Warn("no")
	if got := out.String(); got != "<7>yes a=1\n" {
		t.Errorf("got %q", got)
	}
	if h := NewJournalHandler(io.Discard, slog.LevelWarn, new(oneByOne).add); h.Enabled(t.Context(), slog.LevelInfo) || !h.Enabled(t.Context(), slog.LevelWarn) {
		t.Error("NewJournalHandler does not keep to its level")
	}
}

// TestJournalSiblings: a logger made from another does not write into the
// attributes of its siblings.
func TestJournalSiblings(t *testing.T) {
	var out bytes.Buffer
	base := plain(&out, slog.LevelInfo).With("a", 1).With("b", 2)
	one, two := base.With("one", 1), base.With("two", 2)
	one.Info("m")
	two.Info("m")
	base.Info("m")
	if got, want := out.String(), "<6>m a=1 b=2 one=1\n<6>m a=1 b=2 two=2\n<6>m a=1 b=2\n"; got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// TestJournalConcurrent: lines do not mix.
func TestJournalConcurrent(t *testing.T) {
	var out bytes.Buffer
	log := plain(&out, slog.LevelInfo)
	var writers sync.WaitGroup
	for range 8 {
		writers.Go(func() {
			for range 100 {
				log.Info("message", "value", "0123456789")
			}
		})
	}
	writers.Wait()
	if want := strings.Repeat("<6>message value=0123456789\n", 800); out.String() != want {
		t.Errorf("%d bytes that are not 800 lines", out.Len())
	}
}

// TestFieldName: the journal takes capitals, digits and "_"
// (systemd.journal-fields(7)).
func TestFieldName(t *testing.T) {
	for key, want := range map[string]string{
		"domain": "STSMAP_DOMAIN", "max_age": "STSMAP_MAX_AGE", "g.h.b": "STSMAP_G_H_B", "x-1": "STSMAP_X_1",
		"caf\u00e9": "STSMAP_CAF_", "a\nMESSAGE=b": "STSMAP_A_MESSAGE_B", "": "STSMAP_",
	} {
		if got := fieldName(key); got != want {
			t.Errorf("%q is %s, want %s", key, got, want)
		}
	}
}
