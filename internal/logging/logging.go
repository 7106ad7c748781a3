// SPDX-License-Identifier: Apache-2.0

// Package logging makes the loggers of the programs: text or JSON on a stream, or entries
// of systemd's journal with a priority and fields.
//
// What others have said, such as the names of initiators, is made harmless here for every
// form: it can't pass for a line of its own nor steer a terminal. In text slog's own
// quoting does that, in JSON and in the journal [escape].
package logging

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/coreos/go-systemd/v22/journal"
)

// Formats of a log.
const (
	Auto = "auto" // fields in the journal if the stream leads there, otherwise text
	Text = "text"
	JSON = "json"
)

// Formats are all that there are.
func Formats() []string { return []string{Auto, Text, JSON} }

// Levels are the names of all levels, the most talkative first.
func Levels() []string { return []string{"debug", "info", "warn", "error"} }

// New returns a logger of the program name that writes to standard error, or to the journal
// if standard error leads there; format is one of [Formats], empty for Auto.
func New(name, format string, level slog.Leveler) (*slog.Logger, error) {
	inJournal, err := journal.StderrIsJournalStream()
	// An error is about a JOURNAL_STREAM that is none of the journal's.
	inJournal = inJournal && err == nil
	o := slog.HandlerOptions{Level: level}
	if inJournal { // which has its own time stamps
		o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	switch cmp.Or(format, Auto) {
	case Text:
		return slog.New(slog.NewTextHandler(os.Stderr, &o)), nil
	case JSON:
		o.ReplaceAttr = escapeAfter(o.ReplaceAttr)
		return slog.New(slog.NewJSONHandler(os.Stderr, &o)), nil
	case Auto:
		text := slog.NewTextHandler(os.Stderr, &o)
		if inJournal {
			return slog.New(&journalHandler{name: name, level: level, send: journal.Send, other: text}), nil
		}
		return slog.New(text), nil
	}
	return nil, fmt.Errorf("%q is none of %s", format, strings.Join(Formats(), ", "))
}

// ParseLevel reads the name of a level, in letters of any case.
func ParseLevel(name string) (l slog.Level, err error) {
	if !slices.Contains(Levels(), strings.ToLower(name)) {
		return l, fmt.Errorf("%q is none of %s", name, strings.Join(Levels(), ", "))
	}
	err = l.UnmarshalText([]byte(name))
	return l, err
}

// LevelName is what ParseLevel reads.
func LevelName(l slog.Level) string { return strings.ToLower(l.String()) }

// escapeAfter has the values of a JSON log escaped, after replace if there is one. Numbers stay numbers.
func escapeAfter(replace func([]string, slog.Attr) slog.Attr) func([]string, slog.Attr) slog.Attr {
	return func(groups []string, a slog.Attr) slog.Attr {
		if replace != nil {
			a = replace(groups, a)
		}
		switch a.Value.Kind() {
		case slog.KindString:
			a.Value = slog.StringValue(escape(a.Value.String()))
		case slog.KindAny:
			if _, level := a.Value.Any().(slog.Level); !level {
				a.Value = slog.StringValue(escape(a.Value.String()))
			}
		}
		return a
	}
}

// escape writes what does not print as Go's string literals do.
func escape(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if piece := s[:n]; strconv.IsPrint(r) && (r != utf8.RuneError || n > 1) {
			b.WriteString(piece)
		} else {
			quoted := strconv.Quote(piece)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		s = s[n:]
	}
	return b.String()
}
