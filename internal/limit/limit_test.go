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
	l, now := New(3, 3*time.Hour), time.Now()
	for i := range 5 {
		if ok, refused := l.allow(now); ok != (i < 3) || refused != 0 {
			t.Errorf("event %d: %v, %d refused before", i, ok, refused)
		}
	}
	now = now.Add(time.Hour) // a third of the period: one event more
	if ok, refused := l.allow(now); !ok || refused != 2 {
		t.Errorf("after a while: %v, %d refused before; want 2", ok, refused)
	}
	if ok, _ := l.allow(now); ok {
		t.Error("two events in a third of the period, want 1")
	}
	now = now.Add(10 * time.Hour)
	for i := range 4 {
		if ok, refused := l.allow(now); ok != (i < 3) || i == 0 && refused != 1 {
			t.Errorf("event %d after a long time: %v, %d refused before", i, ok, refused)
		}
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
	for range 2 { // what has been given up is not owed
		if !l.Wait(stop) {
			t.Error("an event over the bound had not to wait")
		}
	}
	if ok, _ := l.allow(time.Now().Add(time.Hour + time.Minute)); !ok {
		t.Error("events that were not waited for have used up what came later")
	}
}

func TestLog(t *testing.T) {
	var b bytes.Buffer
	log, l, now := slog.New(slog.NewTextHandler(&b, nil)), New(1, time.Hour), time.Now()
	for range 3 {
		l.log(now, log, slog.LevelWarn, "refused", "who", "them")
	}
	if n := strings.Count(b.String(), "refused"); n != 1 {
		t.Errorf("%d lines, want 1:\n%s", n, &b)
	}
	l.log(now.Add(time.Hour), log, slog.LevelWarn, "refused", "who", "them")
	if !strings.Contains(b.String(), "level=WARN msg=refused who=them suppressed=2\n") {
		t.Errorf("logged:\n%s", &b)
	}
}
