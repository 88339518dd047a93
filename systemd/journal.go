package systemd

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"github.com/coreos/go-systemd/v22/journal"
)

// InJournal reports whether what is written to standard error ends up in the
// journal (JOURNAL_STREAM, systemd.exec(5)).
func InJournal() bool {
	ok, err := journal.StderrIsJournalStream()
	return ok && err == nil
}

// NewJournalHandler returns a handler that logs to the journal. Attributes
// become fields: "domain" is searched for as STSMAP_DOMAIN=…. If the journal's
// own socket cannot be reached, lines with a priority prefix are written to
// fallback instead (sd-daemon(3)). No line has a time: the journal knows it.
func NewJournalHandler(fallback io.Writer, level slog.Leveler) slog.Handler {
	return &journalHandler{
		level:  level,
		native: journal.Enabled(),
		out:    &lineWriter{w: fallback},
	}
}

// journalHandler implements slog.Handler.
type journalHandler struct {
	level  slog.Leveler
	native bool
	out    *lineWriter
	group  string      // prefix of attribute names, ending in "."
	attrs  []slog.Attr // with group already applied
}

// lineWriter writes one line at a time.
type lineWriter struct {
	mu sync.Mutex
	w  io.Writer
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
	if h.native && journal.Send(message.String(), priority(r.Level), fields) == nil {
		return nil
	}
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err := fmt.Fprintf(h.out.w, "<%d>%s\n", priority(r.Level), message.String())
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
