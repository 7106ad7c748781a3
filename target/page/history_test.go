// SPDX-License-Identifier: Apache-2.0

package page

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// reads is an activity of n reads, each of which waited 10 µs and took the store 30 µs.
func reads(n uint64) scsi.Activity {
	var w scsi.Work
	w.Count = n
	w.Queue.Buckets[0], w.Queue.Sum = n, time.Duration(n)*10*time.Microsecond
	w.Device.Buckets[2], w.Device.Sum = n, time.Duration(n)*30*time.Microsecond
	return scsi.Activity{Commands: map[string]scsi.Work{"read": w}}
}

// did sets what LUN 1 and the session have read.
func did(st *control.Status, n uint64) {
	c := scsi.Counters{Reads: n, ReadBytes: n * 4096}
	st.Targets[0].LUNs[1].Counters, st.Targets[0].LUNs[1].Activity, st.Sessions[0].Counters = c, reads(n), c
}

// TestRates: a rate is the difference of two samples, over an upgrade as well; what is new has none, unless it began since.
func TestRates(t *testing.T) {
	w, start := newWorld(), time.Now()
	var h history
	h.restore(nil)
	st := w.status()
	did(&st, 1000)
	h.add(start, &st)
	if len(h.rates) != 0 || h.totals[0] != (totals{}) {
		t.Fatalf("rates of one sample: %v", h.rates)
	}
	want := func(key string, commands float64) {
		t.Helper()
		r, ok := h.rates[key]
		if !ok || math.Abs(r.commands-commands) > 0.01 || math.Abs(r.read-4096*commands) > 1 || r.written != 0 {
			t.Errorf("%s: %+v, %v; want %v a second", key, r, ok, commands)
		}
	}
	st = w.status()
	did(&st, 1300)
	h.add(start.Add(2*time.Second), &st)
	want("1/1", 150)
	want("s7", 150)
	took := h.rates["1/1"].took
	if took.mean() != 40*time.Microsecond || took.device.Count() != 300 {
		t.Errorf("latency %v of %d", took.mean(), took.device.Count())
	}
	if got := h.totals[1]; got != (totals{150 * 4096, 0, 150, 0, 40}) {
		t.Errorf("totals %v", got)
	}

	// The successor goes on, by what it is told in JSON.
	text, err := json.Marshal(h.past())
	if err != nil {
		t.Fatal(err)
	}
	h = history{}
	h.restore(readPast(text))
	st = w.status()
	did(&st, 1400)
	st.Sessions = append(st.Sessions, st.Sessions[0], st.Sessions[0])
	st.Sessions[1].TSIH, st.Sessions[1].Started = 8, start.Add(3*time.Second)
	st.Sessions[2].TSIH = 9 // has been there for long
	h.add(start.Add(4*time.Second), &st)
	want("1/1", 50)
	want("s7", 50)
	want("s8", 700)
	if _, ok := h.rates["s9"]; ok {
		t.Error("a session that nothing is known of has a rate")
	}
	if r := h.rates["1/1"]; r.took.mean() != 40*time.Microsecond {
		t.Errorf("latency after an upgrade: %v", r.took.mean())
	}
	if len(h.at) != 3 || len(h.loads["1/1"]) != 3 || h.loads["1/1"][2] != level(50*4096) || h.waits["1/1"][2] != level(40) || h.loads["1/2"][2] != 0 {
		t.Errorf("graphs: %v, %v, %v", h.at, h.loads, h.waits)
	}

	// Another disk in the place of one, whose counters begin anew.
	st = w.status()
	did(&st, 5)
	h.add(start.Add(6*time.Second), &st)
	if r, ok := h.rates["1/1"]; ok {
		t.Errorf("a disk that was replaced has read %+v", r)
	}
	// The clock is set back: nothing is known, and nothing is endless.
	did(&st, 50)
	h.add(start, &st)
	if r := h.rates["1/1"]; r.commands != 0 {
		t.Errorf("after the clock was set: %+v", r)
	}
}

// TestSamplesAreBounded: the oldest go, and those of what is gone.
func TestSamplesAreBounded(t *testing.T) {
	w, start := newWorld(), time.Now()
	var h history
	h.restore(nil)
	for n := range steps + 20 {
		st := w.status()
		did(&st, uint64(n)*uint64(n))
		h.add(start.Add(time.Duration(n)*time.Second), &st)
	}
	if len(h.at) != steps || len(h.totals) != steps || len(h.loads["1/1"]) != steps || len(h.waits["1/1"]) != steps {
		t.Errorf("%d, %d, %d, %d samples", len(h.at), len(h.totals), len(h.loads["1/1"]), len(h.waits["1/1"]))
	}
	if want := start.Add((steps + 19) * time.Second).UnixMilli(); h.at[steps-1] != want || h.at[0] != start.Add(20*time.Second).UnixMilli() {
		t.Errorf("from %d to %d", h.at[0], h.at[steps-1])
	}
	st := w.status()
	st.Targets = nil
	h.add(start.Add(time.Hour), &st)
	if len(h.loads) != 0 || len(h.waits) != 0 {
		t.Errorf("graphs of what is gone: %d", len(h.loads))
	}
}

// TestStrangePast: what does not fit is left out, whoever has told it.
func TestStrangePast(t *testing.T) {
	good := map[string][]byte{"1/1": {1}}
	for name, p := range map[string]*past{
		"lengths": {At: []int64{1, 2}, Totals: []totals{{}}},
		"loads":   {At: []int64{1}, Totals: []totals{{}}, Loads: map[string][]byte{"1/1": {1, 2}}, Waits: good},
		"waits":   {At: []int64{1}, Totals: []totals{{}}, Loads: good},
		"works":   {At: []int64{1}, Totals: []totals{{}}, Works: map[string][]byte{"1/1": {0xff}}},
		"nothing": {},
		"text":    readPast([]byte(`{"at": [1], "totals": "none"}`)),
	} {
		var h history
		h.restore(p)
		if len(h.loads) != 0 || len(h.waits) != 0 || len(h.last.works) != 0 {
			t.Errorf("%s: %+v", name, h)
		}
		st := newWorld().status()
		h.add(time.Now(), &st)
		if len(h.loads["1/1"]) != len(h.at) || len(h.totals) != len(h.at) {
			t.Errorf("%s: graphs of different lengths", name)
		}
	}
}

// TestLevel: the page's script gets a value back from its level, to 5 %.
func TestLevel(t *testing.T) {
	for _, v := range []float64{1, 2, 99, 4096, 1e6, 123456789, 5e10} {
		back := math.Pow(2, float64(level(v)-1)/levelSteps)
		if math.Abs(back-v)/v > 0.055 {
			t.Errorf("%v becomes %v", v, back)
		}
	}
	if level(0) != 0 || level(0.9) != 0 || level(1) != 1 || level(math.Inf(1)) != 255 {
		t.Errorf("levels %d, %d, %d, %d", level(0), level(0.9), level(1), level(math.Inf(1)))
	}
}

func TestTexts(t *testing.T) {
	got := []string{
		size(0), size(999), size(1023), size(1024), size(1536), size(10 << 20), size(1 << 30), size(4096 * 150.4), size(1023.7 * 1024),
		count(999), count(1000), count(1234567), perSecond(0), perSecond(3.14), perSecond(1500.4),
		age(59 * time.Second), age(61 * time.Second), age(3 * time.Hour), age(50 * time.Hour), age(-time.Second),
		took(0), took(850 * time.Microsecond), took(12340 * time.Microsecond), took(2 * time.Second),
		list([]string{"a", "b"}), list([]string{"a", "b", "c", "d", "e", "f"}),
	}
	want := []string{
		"0 B", "999 B", "1023 B", "1 KiB", "1.50 KiB", "10.0 MiB", "1 GiB", "602 KiB", "1.00 MiB",
		"999", "1,000", "1,234,567", "0", "3.1", "1,500",
		"59 s", "1 min 1 s", "3 h 0 min", "2 d 2 h", "0 s",
		"0", "850 µs", "12.3 ms", "2 s",
		"a, b", "a, b, c, d and 2 more",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// BenchmarkSample is what the daemon spends every 2 s on 200 logical units and 200 sessions, all at work, while somebody looks.
func BenchmarkSample(b *testing.B) {
	w := newWorld()
	for n := range 198 {
		w.st.Targets[0].LUNs = append(w.st.Targets[0].LUNs, disk(uint16(n+3)))
	}
	for n := range 199 {
		s := w.st.Sessions[0]
		s.TSIH = uint16(n + 8)
		w.st.Sessions = append(w.st.Sessions, s)
	}
	p := New(Options{Status: w.status, Interval: time.Hour})
	defer p.Close()
	p.watch(1)
	seen := p.next(0, false).tick
	n := uint64(0)
	for b.Loop() {
		n++
		w.change(func(st *control.Status) {
			for i := range st.Targets[0].LUNs {
				st.Targets[0].LUNs[i].Counters, st.Targets[0].LUNs[i].Activity = scsi.Counters{Reads: n * 100, ReadBytes: n * n * 4096}, reads(n)
			}
			for i := range st.Sessions {
				st.Sessions[i].Counters = scsi.Counters{Reads: n * 100, ReadBytes: n * n * 4096}
			}
		})
		p.sample()
		m := p.next(seen, false)
		seen = m.tick
		b.SetBytes(int64(len(m.text)))
	}
}
