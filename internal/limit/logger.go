// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

const (
	// Lines is how many lines a second a [Logger] writes, and as many at once.
	Lines = 20
	// LineBytes is the most bytes of a line, as slog's TextHandler and JSONHandler write it,
	// without what the logger had before.
	LineBytes = 512

	// leftOut is the attribute that counts the lines that were not written.
	leftOut = "left-out"
	// lineHead is what time, level, leftOut and their punctuation take at most.
	lineHead = 128
	// minValue is the room that every value of a line has, however many there are.
	minValue = 16
	ellipsis = "…"
)

// Logger returns a logger for the lines that initiators can cause: it writes few of them
// and no long ones, whatever is sent. All that is derived from it shares its limit, so
// those who log for the same initiators are given the same one; a logger that is limited
// already is returned as it is.
func Logger(log *slog.Logger) *slog.Logger {
	if _, ok := log.Handler().(*handler); ok {
		return log
	}
	return slog.New(&handler{next: log.Handler(), lines: New(Lines, time.Second)})
}

// Account has a logger that [Logger] has made write how many lines it has left out since
// the last one, if there are any. Who calls it now and then has them counted also if no
// other line follows.
func Account(log *slog.Logger) {
	if h, ok := log.Handler().(*handler); ok && h.lines.refused.Load() > 0 {
		log.Warn("log lines left out, as initiators cause too many")
	}
}

// Plain returns a logger without the limit of [Logger], for what an administrator has to
// know whatever initiators do.
func Plain(log *slog.Logger) *slog.Logger {
	if h, ok := log.Handler().(*handler); ok {
		return slog.New(h.next.WithAttrs(h.attrs))
	}
	return log
}

// handler is a limited slog.Handler.
type handler struct {
	next  slog.Handler
	lines *Limiter
	attrs []slog.Attr // which next does not have yet, since they count
}

func (h *handler) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.attrs = append(slices.Clip(h.attrs), attrs...)
	return &with
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	with := *h
	with.next, with.attrs = h.next.WithAttrs(h.attrs).WithGroup(name), nil
	return &with
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	ok, refused := h.lines.Allow()
	if !ok {
		return nil
	}
	attrs := slices.Clone(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, a)
		return true
	})
	short := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	short.AddAttrs(shorten(attrs, LineBytes-lineHead-len(r.Message))...)
	if refused > 0 {
		short.AddAttrs(slog.Int64(leftOut, refused))
	}
	return h.next.Handle(ctx, short)
}

// shorten cuts the longest values until the attributes have room in so many bytes.
func shorten(attrs []slog.Attr, room int) []slog.Attr {
	costs := make([]int, len(attrs))
	for i := range attrs {
		a := &attrs[i]
		a.Value = a.Value.Resolve()
		if k := a.Value.Kind(); k == slog.KindAny || k == slog.KindGroup {
			a.Value = slog.StringValue(a.Value.String())
		}
		room -= len(a.Key) + len(` ="",`)
		costs[i] = cost(a.Value.String())
	}
	most := share(costs, room)
	for i := range attrs {
		if costs[i] > most {
			attrs[i].Value = slog.StringValue(cutTo(attrs[i].Value.String(), most))
		}
	}
	return attrs
}

// share returns the most that each may have so that all have room: those that need less
// leave the rest to the others.
func share(costs []int, room int) int {
	sorted := slices.Sorted(slices.Values(costs))
	for i, c := range sorted {
		if each := room / (len(sorted) - i); c > each {
			return max(each, minValue)
		}
		room -= c
	}
	return LineBytes
}

// cost is how many bytes a text takes within quotes.
func cost(s string) (n int) {
	for _, r := range s[:min(len(s), LineBytes)] { // one that is longer is cut in any case
		n += runeCost(r)
	}
	return n + max(len(s)-LineBytes, 0)
}

// runeCost is how many bytes a character takes within quotes, in the longest of Go's form,
// JSON's, and Go's within JSON (package logging).
func runeCost(r rune) int {
	if strconv.IsPrint(r) && r != '"' && r != '\\' && r != '<' && r != '>' && r != '&' && r != utf8.RuneError {
		return utf8.RuneLen(r)
	}
	if r > 0xffff {
		return len(`\\U0010ffff`)
	}
	return len(`\\u0000`)
}

// cutTo cuts a text to so many bytes within quotes.
func cutTo(s string, most int) string {
	n := len(ellipsis)
	for i, r := range s {
		if n += runeCost(r); n > most {
			return s[:i] + ellipsis
		}
	}
	return s
}
