package systemd

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/coreos/go-systemd/v22/journal"
)

// InJournal reports whether what is written to standard error ends up in the
// journal (JOURNAL_STREAM, systemd.exec(5)).
func InJournal() bool {
	ok, err := journal.StderrIsJournalStream()
	return ok && err == nil
}

// lateAfter is how old a line is when its text says when it was logged.
const lateAfter = time.Second

// NewJournalHandler returns a handler that logs to the journal. Attributes
// become fields: "domain" is searched for as STSMAP_DOMAIN=…. If the journal's
// own socket cannot be reached, lines with a priority prefix are written to
// fallback instead (sd-daemon(3)).
//
// The handler calls queue for each line, with about its size in bytes and what
// writes it. queue decides when that is, must write one line at a time, and
// must not fail. When a line was logged is in SYSLOG_TIMESTAMP, in the form of
// RFC 3339. Its text has no time, because the journal knows it, unless it is
// written more than a second late.
func NewJournalHandler(fallback io.Writer, level slog.Leveler, queue func(size int, write func() error)) slog.Handler {
	h := &journalHandler{level: level, fallback: fallback, queue: queue}
	if journal.Enabled() {
		h.send = journal.Send
	}
	return h
}

// journalHandler implements slog.Handler.
type journalHandler struct {
	level    slog.Leveler
	send     func(string, journal.Priority, map[string]string) error // nil without the journal's socket
	fallback io.Writer
	queue    func(size int, write func() error)
	group    string      // prefix of attribute names, ending in "."
	attrs    []slog.Attr // with group already applied
}

// Enabled implements slog.Handler.
func (h *journalHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// WithAttrs implements slog.Handler.
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.attrs = append([]slog.Attr(nil), h.attrs...)
	for _, a := range attrs {
		with.attrs = append(with.attrs, slog.Attr{Key: h.group + a.Key, Value: a.Value})
	}
	return &with
}

// WithGroup implements slog.Handler.
func (h *journalHandler) WithGroup(name string) slog.Handler {
	with := *h
	with.group += name + "."
	return &with
}

// Handle implements slog.Handler.
func (h *journalHandler) Handle(_ context.Context, r slog.Record) error {
	var message strings.Builder
	message.WriteString(r.Message)
	fields := map[string]string{"SYSLOG_IDENTIFIER": "stsmap"}
	var add func(group string, a slog.Attr)
	add = func(group string, a slog.Attr) {
		value := a.Value.Resolve()
		if value.Kind() == slog.KindGroup {
			for _, member := range value.Group() {
				add(group+a.Key+".", member)
			}
			return
		}
		if a.Equal(slog.Attr{}) {
			return
		}
		message.WriteString(" " + group + a.Key + "=" + quoted(value.String()))
		fields[fieldName(group+a.Key)] = value.String()
	}
	for _, a := range h.attrs {
		add("", a)
	}
	r.Attrs(func(a slog.Attr) bool {
		add(h.group, a)
		return true
	})
	line := journalLine{logged: r.Time, priority: priority(r.Level), message: message.String(), fields: fields}
	h.queue(line.size(), func() error { return h.write(line) })
	return nil
}

// A journalLine is one line in the journal.
type journalLine struct {
	logged   time.Time // zero if unknown
	priority journal.Priority
	message  string
	fields   map[string]string
}

// size is about how many bytes of memory the line takes.
func (l journalLine) size() int {
	n := len(l.message)
	for key, value := range l.fields {
		n += len(key) + len(value)
	}
	return n
}

// write writes l to the journal, or else to the fallback.
func (h *journalHandler) write(l journalLine) error {
	if !l.logged.IsZero() {
		logged := l.logged.UTC().Format("2006-01-02T15:04:05.000000Z07:00")
		l.fields["SYSLOG_TIMESTAMP"] = logged
		if time.Since(l.logged) > lateAfter {
			l.message += " time=" + logged
		}
	}
	if h.send != nil && h.send(l.message, l.priority, l.fields) == nil {
		return nil
	}
	_, err := fmt.Fprintf(h.fallback, "<%d>%s\n", l.priority, l.message)
	return err
}

// quoted returns value as it is if it is one plain word, and quoted and
// escaped otherwise: values come from strangers, and one log line must stay
// one line.
func quoted(value string) string {
	odd := func(r rune) bool {
		return r == ' ' || r == '"' || r == '=' || r == unicode.ReplacementChar || !unicode.IsPrint(r)
	}
	if value == "" || strings.ContainsFunc(value, odd) {
		return strconv.Quote(value)
	}
	return value
}

// fieldName turns the name of an attribute into that of a journal field, of
// which only capitals, digits and "_" are allowed.
func fieldName(key string) string {
	return "STSMAP_" + strings.Map(func(r rune) rune {
		if r = unicode.ToUpper(r); r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, key)
}

// priority is the syslog priority of a level.
func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	default:
		return journal.PriDebug
	}
}
