// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/scsi/latency"
)

// work is n commands of a kind that each waited and worked so long.
func work(n uint64, waited, worked time.Duration) scsi.Work {
	var queue, device latency.Histogram
	for range n {
		queue.Record(waited)
		device.Record(worked)
	}
	return scsi.Work{Count: n, Queue: queue.Load(), Device: device.Load()}
}

// topSamples are two samples, two seconds apart.
func topSamples() (before, now *topSample) {
	at := time.Date(2026, 11, 22, 12, 1, 0, 0, time.UTC)
	a, b := captured(), captured()
	count := func(st *control.Status, t, l int, c scsi.Counters, inflight int, kinds map[string]scsi.Work) {
		u := &st.Targets[t].LUNs[l]
		u.Counters, u.Inflight, u.Activity.Commands = c, inflight, kinds
	}
	count(a, 0, 1, scsi.Counters{Reads: 100, Writes: 50, ReadBytes: 1 << 20}, 0, map[string]scsi.Work{"read": work(100, time.Second, time.Second)})
	busy := work(100, time.Second, time.Second)
	more := work(300, time.Millisecond, 3*time.Millisecond)
	busy.Queue.Plus(&more.Queue)
	busy.Device.Plus(&more.Device)
	count(b, 0, 1, scsi.Counters{Reads: 400, Writes: 50, ReadBytes: 3 << 20, Errors: 2}, 7, map[string]scsi.Work{"read": busy})
	// The other disk was another process's before: its counters begin anew.
	count(a, 1, 2, scsi.Counters{Writes: 1000, WrittenBytes: 1 << 30}, 3, nil)
	count(b, 1, 2, scsi.Counters{Writes: 10, WrittenBytes: 16 << 10}, 9, map[string]scsi.Work{"write": work(10, 0, 50*time.Microsecond)})
	b.Sessions[0].Counters.Reads += 300
	b.Sessions[0].Tasks = 4
	again := b.Sessions[0]
	again.TSIH, again.Counters, again.Tasks = 9, scsi.Counters{Writes: 20}, 1
	b.Sessions = append(b.Sessions, again)
	return &topSample{a, at}, &topSample{b, at.Add(2 * time.Second)}
}

// page is what a model shows of samples, with blanks of any number as one.
func topPage(m *topModel, width, height int) string {
	m.before, m.now = topSamples()
	var lines []string
	for _, l := range m.page(width, height) {
		lines = append(lines, strings.Join(strings.Fields(l), " "))
	}
	return strings.Join(lines, "\n") + "\n"
}

func TestTopViews(t *testing.T) {
	for name, tc := range map[string]struct {
		m    topModel
		want string
	}{
		"LUNs by I/O": {topModel{view: topLUNs, by: byIO}, `
LUN TARGET R/s W/s READ/s WRITTEN/s WAIT DISK 99% QUEUE ERR/s STATE PATH
1 iqn.2015-02.com.stu31:t1 150 0 1.0MiB 0B 1.0ms 3.0ms 5.0ms 7 1.0 ok /srv/busybox.img
2 iqn.2015-02.com.stu31:t2 0 5.0 0B 8.0KiB 0us 50us 50us 9 0 ok /srv/c.img
1 iqn.2015-02.com.stu31:t2 0 0 0B 0B - - - 0 0 read-only /srv/b.img
`},
		"LUNs by queue": {topModel{view: topLUNs, by: byQueue, raw: true}, `
2 iqn.2015-02.com.stu31:t2 0 5.0 0 8192 0us 50us 50us 9 0 ok /srv/c.img
1 iqn.2015-02.com.stu31:t1 150 0 1048576 0 `},
		"LUNs by latency, reversed": {topModel{view: topLUNs, by: byLatency, reverse: true}, `
1 iqn.2015-02.com.stu31:t2 0 0 0B 0B - - - 0 0 read-only /srv/b.img
2 `},
		"sessions": {topModel{view: topSessions, by: byIO}, `
TSIH INITIATOR R/s W/s READ/s WRITTEN/s QUEUE ERR/s AGE TARGET ADDRESS
1 iqn.2015-02.com.stu31:xen1 150 0 0B 0B 4 0 1m02s iqn.2015-02.com.stu31:t1 127.0.0.1:40312
9 iqn.2015-02.com.stu31:xen1 0 10 0B 0B 1 0 1m02s iqn.2015-02.com.stu31:t1 127.0.0.1:40312
2 iqn.2015-02.com.stu31:xen2 0 0 0B 0B 0 0 12s (discovery) [::1]:40313
`},
		"initiators": {topModel{view: topInitiators, by: byBytes}, `
SESSIONS INITIATOR R/s W/s READ/s WRITTEN/s QUEUE ERR/s
2 iqn.2015-02.com.stu31:xen1 150 10 0B 0B 5 0
1 iqn.2015-02.com.stu31:xen2 0 0 0B 0B 0 0
`},
	} {
		if got := topPage(&tc.m, 0, 0); !strings.Contains(got, tc.want) {
			t.Errorf("%s: no\n%s in\n%s", name, tc.want, got)
		}
	}
}

// TestTopFits lays out screens of all sizes.
func TestTopFits(t *testing.T) {
	for width := 1; width < 200; width += 3 {
		for height := 1; height < 12; height++ {
			m := topModel{view: topLUNs, by: byIO, offset: width % 5}
			m.before, m.now = topSamples()
			lines := m.page(width, height)
			if len(lines) > height {
				t.Fatalf("%d lines on a screen of %d", len(lines), height)
			}
			for _, l := range lines {
				if ansi.StringWidth(l) > width {
					t.Fatalf("a line of %d columns on a screen of %d: %q", ansi.StringWidth(l), width, l)
				}
			}
		}
	}
	m := topModel{view: topLUNs, by: byIO}
	if got := topPage(&m, 110, 20); !strings.Contains(got, "….com.stu31:t1 ") || !strings.Contains(got, "busybox.img") {
		t.Errorf("names are not cut at their beginning:\n%s", got)
	}
}

// TestTopHostileName has an initiator whose name would steer the terminal.
func TestTopHostileName(t *testing.T) {
	m := topModel{view: topSessions, by: byIO}
	m.before, m.now = topSamples()
	m.now.st.Sessions[0].Initiator = "iqn.x\x1b[2J\n\u202e"
	m.take(nil, errors.New("bad\x1b[2J"))
	if got := strings.Join(m.page(0, 0), "\n"); strings.ContainsAny(got, "\x1b\u202e") || strings.Count(got, "\n") != 6 {
		t.Errorf("the page is %q", got)
	}
}

func TestTopKeys(t *testing.T) {
	m := &topModel{view: topLUNs, by: byLatency, delay: 2 * time.Second, delays: make(chan time.Duration, 1)}
	m.before, m.now = topSamples()
	m.Update(tea.WindowSizeMsg{Width: 150, Height: 6})
	for _, step := range []struct {
		key   string
		shows string
	}{
		{"s", "3 luns by queue, every 2s"}, {"s", "luns by io,"}, {"s", "luns by bytes,"}, {"s", "luns by latency,"},
		{"t", "3 sessions by io,"}, {"r", "sessions by io, lowest first"}, {"i", "2 initiators by io, lowest first"}, {"r", "by io, every 2s"},
		{"+", "every 5s"}, {"-", "every 2s"}, {"-", "every 1s"}, {"?", "sort by the next"}, {"l", "2 initiators"}, {"l", "3 luns"},
		{"b", "READ/s 1048576"}, {"b", "READ/s 1.0MiB"}, {"down", "/srv/c.img"}, {"pgdown", "/srv/b.img"}, {"home", "busybox"},
	} {
		if m.key(step.key) {
			t.Fatalf("%q ends", step.key)
		}
		if got := m.View().Content; !strings.Contains(got, step.shows) {
			t.Errorf("after %q no %q in\n%s", step.key, step.shows, got)
		}
	}
	if d := <-m.delays; d != time.Second {
		t.Errorf("who polls was told of %v, want 1s", d)
	}
	for _, k := range []string{"q", "ctrl+c"} {
		if !m.key(k) {
			t.Errorf("%s does not end", k)
		}
	}
}

// TestTopPolls lets it go on when the daemon does not answer, and polls at once with a new delay.
func TestTopPolls(t *testing.T) {
	m := &topModel{view: topLUNs, by: byIO}
	m.before, m.now = topSamples()
	was := m.now
	m.Update(polled{err: errors.New("gone")})
	if got := strings.Join(m.page(0, 0), "\n"); !strings.Contains(got, "no answer for 0s, and asked again: gone\n") || m.now != was {
		t.Errorf("without an answer:\n%s", got)
	}
	m.left = 2
	if _, quit := m.Update(polled{sample: was}); quit != nil || m.err != nil {
		t.Errorf("the first of two: %v, %v", quit, m.err)
	}
	if _, quit := m.Update(polled{sample: was}); quit == nil {
		t.Error("the last does not end it")
	}
	ctx, cancel := context.WithCancel(t.Context())
	delays, got, done := make(chan time.Duration, 1), make(chan polled), make(chan struct{})
	go func() {
		defer close(done)
		pollTop(ctx, time.Hour, delays, func(p polled) { got <- p }, func(context.Context) (*topSample, error) { return was, nil })
	}()
	delays <- time.Hour
	if p := <-got; p.sample != was || p.err != nil {
		t.Errorf("polled %+v", p)
	}
	cancel()
	<-done
}

func TestParseDelay(t *testing.T) {
	for s, want := range map[string]time.Duration{"2": 2 * time.Second, "0.5": 500 * time.Millisecond, "1m": time.Minute} {
		if got, err := parseDelay(s); err != nil || got != want {
			t.Errorf("%s is %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "0", "-1", "soon", "NaN", "1e300", "99ms"} {
		if got, err := parseDelay(s); err == nil {
			t.Errorf("%q is %v", s, got)
		}
	}
}

// TestTopAgrees compares rates with what an initiator has done, over an upgrade too.
func TestTopAgrees(t *testing.T) {
	d := startDaemon(t)
	s, err := initiator.Dial(t.Context(), initiator.Options{Address: d.status(t).Portals[0].Address.String(), TargetName: defaultTarget, InitiatorName: "iqn.2026-11.test:a"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	all := &selection{lun: -1}
	c := control.NewClient(d.socket)
	sample := func() *topSample {
		x, err := takeSample(t.Context(), c, all)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	if err := s.Settle(t.Context(), initiator.LUN(1)); err != nil {
		t.Fatal(err)
	}
	before := sample()
	for round := range 3 {
		for range 30 {
			if err := s.Do(t.Context(), new(initiator.Command).Read10(initiator.LUN(1), 0, 16, make([]byte, 8192), 0)); err != nil {
				t.Fatal(err)
			}
		}
		for range 12 {
			if err := s.Do(t.Context(), new(initiator.Command).Write10(initiator.LUN(1), 8, 8, make([]byte, 4096), 0)); err != nil {
				t.Fatal(err)
			}
		}
		if round == 1 {
			d.output(t, "upgrade")
		}
		now := sample()
		for _, v := range topViews() {
			rows, sum := topRows(v, before, now)
			times := now.at.Sub(before.at).Seconds()
			got := [4]float64{sum.reads * times, sum.writes * times, sum.readBytes * times, sum.writtenBytes * times}
			for i, want := range [4]float64{30, 12, 30 * 8192, 12 * 4096} {
				if math.Abs(got[i]-want) > 1e-3 {
					t.Errorf("round %d, %s: %v in %v s, want %v: %+v", round, v, got[i], times, want, rows)
				}
			}
			if v == topLUNs && (rows[0].device <= 0 || rows[0].slowest < rows[0].device/2 || rows[0].device.Seconds() > times) {
				t.Errorf("round %d: the commands took %v, 99 of 100 up to %v, in %v s", round, rows[0].device, rows[0].slowest, times)
			}
		}
		before = now
	}
}
