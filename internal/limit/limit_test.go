// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestAllow(t *testing.T) {
	l := New(3, time.Hour)
	for i := range 5 {
		if ok, refused := l.Allow(); ok != (i < 3) || refused != 0 {
			t.Errorf("event %d: %v, %d refused before", i, ok, refused)
		}
	}
	l.since = l.since.Add(-time.Hour) // the next period
	if ok, refused := l.Allow(); !ok || refused != 2 {
		t.Errorf("the next period begins with %v, %d refused before; want 2", ok, refused)
	}
	if ok, refused := l.Allow(); !ok || refused != 0 {
		t.Errorf("then %v, %d refused before; want 0", ok, refused)
	}
}

func TestWait(t *testing.T) {
	l := New(1, time.Millisecond)
	stop := make(chan struct{})
	if l.Wait(stop) {
		t.Error("the first event had to wait")
	}
	for !l.Wait(stop) { // unless a period has passed in between
	}
	close(stop)
	l = New(1, time.Hour)
	l.Wait(stop)
	if !l.Wait(stop) {
		t.Error("an event over the bound had not to wait")
	}
}

func TestLog(t *testing.T) {
	var b bytes.Buffer
	log, l := slog.New(slog.NewTextHandler(&b, nil)), New(1, time.Hour)
	for range 3 {
		l.Log(log, slog.LevelWarn, "refused", "who", "them")
	}
	if n := strings.Count(b.String(), "refused"); n != 1 {
		t.Errorf("%d lines, want 1:\n%s", n, &b)
	}
	l.since = l.since.Add(-time.Hour)
	l.Log(log, slog.LevelWarn, "refused", "who", "them")
	if !strings.Contains(b.String(), "level=WARN msg=refused who=them suppressed=2\n") {
		t.Errorf("logged:\n%s", &b)
	}
}
