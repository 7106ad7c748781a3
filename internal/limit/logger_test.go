// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestLogger(t *testing.T) {
	var b bytes.Buffer
	log := Logger(slog.New(slog.NewTextHandler(&b, nil)))
	target := Logger(log).With("target", "iqn.t").WithGroup("")
	for i := range 10 * Lines {
		log.Info("refused", "i", i)
		target.Warn("reset")
		log.Debug("not written, and not counted")
	}
	// How many depends on how long that took, but what is written and what is left out is all.
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	written := len(lines)
	if written < Lines || written > 19*Lines {
		t.Fatalf("%d lines of %d", written, 20*Lines)
	}
	if !strings.Contains(b.String(), "msg=reset target=iqn.t") {
		t.Errorf("what a derived logger adds is not there:\n%s", &b)
	}
	b.Reset()
	Plain(target).Error("for the administrator")
	if !strings.Contains(b.String(), `msg="for the administrator" target=iqn.t`) {
		t.Errorf("Plain wrote %q", &b)
	}
	if plain := slog.New(slog.DiscardHandler); Plain(plain) != plain {
		t.Error("Plain of a plain logger is another one")
	}
}

func TestLoggerCounts(t *testing.T) {
	var b bytes.Buffer
	h := &handler{next: slog.NewTextHandler(&b, nil), lines: New(2, time.Hour)}
	log := slog.New(h)
	for range 5 {
		log.Info("refused")
	}
	Account(log)
	if n := strings.Count(b.String(), "\n"); n != 2 {
		t.Errorf("%d lines:\n%s", n, &b)
	}
	h.lines.rate.SetBurst(100) // as if time had passed
	h.lines.rate.SetLimit(1e9)
	b.Reset()
	Account(log)
	if !strings.Contains(b.String(), "left-out=4") { // Account's own was one of them
		t.Errorf("Account wrote %q", &b)
	}
	b.Reset()
	Account(log)
	if b.Len() > 0 {
		t.Errorf("with nothing left out Account wrote %q", &b)
	}
}

func TestLoggerShortens(t *testing.T) {
	for name, form := range map[string]func(*bytes.Buffer) slog.Handler{
		"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"JSON": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		rapid.Check(t, func(rt *rapid.T) {
			var b bytes.Buffer
			h := &handler{next: form(&b), lines: New(Lines, time.Second)}
			h.lines.refused.Store(rapid.Int64().Draw(rt, "left out"))
			text := rapid.StringOfN(rapid.Rune(), 0, 400, -1)
			wild := rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 2000), func(b []byte) string { return string(b) })
			slog.New(h).With("target", text.Draw(rt, "target")).Error("backing store can't read", "lun", 1, "initiator", text.Draw(rt, "initiator"),
				"reason", errors.New(wild.Draw(rt, "reason")), "remote", "[fe80::1%eth0]:65535", "tsih", 65535, "cid", 65535)
			if b.Len() == 0 || b.Len() > LineBytes {
				rt.Fatalf("%s: a line of %d bytes: %s", name, b.Len(), &b)
			}
		})
	}
	var b bytes.Buffer
	Logger(slog.New(slog.NewTextHandler(&b, nil))).Info("closed", "reason", strings.Repeat("x", 1<<16), "target", "iqn.t", "initiator", strings.Repeat("i", 100))
	for _, want := range []string{"target=iqn.t", "initiator=" + strings.Repeat("i", 100), "xxx…"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in %s", want, &b)
		}
	}
}
