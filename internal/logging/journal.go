// SPDX-License-Identifier: Apache-2.0

package logging

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// journalHandler makes entries of the journal by its native protocol. Each has the line as
// people read it, and every attribute once more as a field: TARGET=, INITIATOR=, LUN= and so on.
type journalHandler struct {
	name  string
	level slog.Leveler
	send  func(message string, p journal.Priority, fields map[string]string) error
	other slog.Handler // for what the journal does not take

	group string      // what keys begin with
	attrs []slog.Attr // with their groups in their keys
}

// Enabled implements [slog.Handler].
func (h *journalHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// WithAttrs implements [slog.Handler].
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.attrs, with.other = slices.Clip(h.attrs), h.other.WithAttrs(attrs)
	for _, a := range attrs {
		with.attrs = append(with.attrs, slog.Attr{Key: h.group + a.Key, Value: a.Value})
	}
	return &with
}

// WithGroup implements [slog.Handler].
func (h *journalHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	with := *h
	with.group, with.other = h.group+name+".", h.other.WithGroup(name)
	return &with
}

// Handle implements [slog.Handler].
func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	var line strings.Builder
	line.WriteString(escape(r.Message))
	fields := map[string]string{"SYSLOG_IDENTIFIER": h.name}
	add := func(key string, v slog.Value) {
		value := v.Resolve().String()
		line.WriteString(" " + key + "=" + quote(value))
		fields[fieldName(key)] = escape(value)
	}
	for _, a := range h.attrs {
		add(a.Key, a.Value)
	}
	r.Attrs(func(a slog.Attr) bool {
		add(h.group+a.Key, a.Value)
		return true
	})
	if h.send(line.String(), priority(r.Level), fields) == nil {
		return nil
	}
	return h.other.Handle(ctx, r) // the journal is being restarted, or full: its stream still takes lines
}

// quote quotes a value of a line where it would not be one word.
func quote(s string) string {
	if s == "" || strings.ContainsAny(s, " =\"\\") || escape(s) != s {
		return strconv.Quote(s)
	}
	return s
}

// ownFields are fields that have a meaning of their own for the journal.
var ownFields = []string{"MESSAGE", "MESSAGE_ID", "PRIORITY", "SYSLOG_IDENTIFIER", "SYSLOG_FACILITY", "SYSLOG_PID"}

// fieldName makes a key a field of the journal: capitals, digits and underscores, of
// which none stands at the beginning.
func fieldName(key string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
	if name = strings.TrimLeft(name, "_0123456789"); name == "" || slices.Contains(ownFields, name) {
		name = "FIELD_" + name
	}
	return name
}

// priority is the journal's for a level.
func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
