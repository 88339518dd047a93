package admin

import (
	"io"
	"log/slog"
	"strings"
)

// NewHandler returns a handler that writes log lines to w in format "text" or
// "json". The journal's format is in package systemd.
//
// Both escape whatever is not a plain word, so that nothing remote can begin
// a line of its own or speak to a terminal.
func NewHandler(w io.Writer, format string, level slog.Leveler) slog.Handler {
	options := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
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
