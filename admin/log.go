package admin

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// NewHandler returns a handler that writes log lines to w in format "text" or
// "json". The journal's format is in package systemd.
//
// Both escape whatever is not a plain word, so that nothing remote can begin
// a line of its own or speak to a terminal.
func NewHandler(w io.Writer, format string, level slog.Leveler) slog.Handler {
	options := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.NewJSONHandler(escaper{w}, options)
	}
	return slog.NewTextHandler(escaper{w}, options)
}

// An escaper replaces what the handlers of log/slog let through although a
// terminal acts upon it or a reader is deceived by it: delete, the controls
// from 0x80 on, and invisible or direction-changing characters. It does so to
// whole lines, in which they can be nowhere but in strings.
type escaper struct{ w io.Writer }

// Write implements io.Writer.
func (e escaper) Write(line []byte) (int, error) {
	odd := func(r rune) bool { return r >= 0x7f && !unicode.IsPrint(r) }
	if !bytes.ContainsFunc(line, odd) {
		return e.w.Write(line)
	}
	var out []byte
	for _, r := range string(line) {
		switch {
		case !odd(r):
			out = utf8.AppendRune(out, r)
		case r > 0xffff: // as JSON has it
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	if _, err := e.w.Write(out); err != nil {
		return 0, err
	}
	return len(line), nil
}

// ParseLevel returns the level that a configuration names: debug, info, warn
// or error. Other names are info.
func ParseLevel(name string) slog.Level {
	var level slog.Level
	if err := level.UnmarshalText([]byte(strings.ToUpper(name))); err != nil {
		return slog.LevelInfo
	}
	return level
}
