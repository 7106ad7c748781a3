// SPDX-License-Identifier: Apache-2.0

package page

import (
	"encoding/json"
	"maps"
	"math"
	"strconv"
	"time"

	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/scsi/latency"
)

// Bounds on what is kept: 5 minutes at 2 s, and 300 bytes for each of the logical units
// that have graphs.
const (
	steps    = 150
	maxUnits = 512
	maxBases = 8192 // logical units and sessions that have rates
)

// past is what a Page tells its successor, in JSON. Fields are only ever added.
type past struct {
	At     []int64                  `json:"at"`     // when each sample was taken, ms since 1970, oldest first
	Totals []totals                 `json:"totals"` // of each sample
	Loads  map[string][]byte        `json:"loads"`  // bytes per second of each sample, by logical unit; see level
	Waits  map[string][]byte        `json:"waits"`  // latency in µs, likewise
	Bases  map[string]scsi.Counters `json:"bases"`  // counters at the last sample
	Works  map[string][]byte        `json:"works"`  // and durations, see work
	Noted  map[string]noted         `json:"noted"`  // failures, and when each was last seen to rise
}

// readPast reads what a predecessor has told, as far as it can be read.
func readPast(text []byte) *past {
	p := new(past)
	if text == nil || json.Unmarshal(text, p) != nil {
		return nil
	}
	return p
}

// totals are what all logical units did in a second: bytes read and written, commands that read
// and wrote; and the latency of these, in µs.
type totals [5]uint64

// rate is what one of them, or one session, did in a second.
type rate struct {
	read, written float64 // bytes
	commands      float64
	took          work // how long reads and writes took since the sample before
}

// work is how long reads and writes have taken.
type work struct{ queue, device latency.Counts }

func workOf(a *scsi.Activity) (w work) {
	for _, kind := range []string{"read", "write"} {
		if c, ok := a.Commands[kind]; ok {
			w.plus(&work{c.Queue, c.Device})
		}
	}
	return w
}

func (w *work) plus(o *work) {
	w.queue.Plus(&o.queue)
	w.device.Plus(&o.device)
}

// mean is the latency: waiting, and the backing store.
func (w *work) mean() time.Duration {
	n := w.device.Count()
	if n == 0 {
		return 0
	}
	return (w.queue.Sum + w.device.Sum) / time.Duration(n)
}

// sample is what rates are made of.
type sample struct {
	counters map[string]scsi.Counters // of logical units and sessions
	works    map[string]work          // of logical units
}

func newSample() sample { return sample{make(map[string]scsi.Counters), make(map[string]work)} }

// history are the last samples.
type history struct {
	at     []int64
	totals []totals
	loads  map[string][]byte // as long as at, each
	waits  map[string][]byte // likewise, of the same logical units
	last   sample
	rates  map[string]rate  // at the last sample; none is known of what was not there before
	noted  map[string]noted // nil before the first sample
}

// restore goes on from what a predecessor has told. What does not fit is left out: it is
// for graphs alone.
func (h *history) restore(p *past) {
	h.loads, h.waits, h.rates, h.last = make(map[string][]byte), make(map[string][]byte), make(map[string]rate), newSample()
	if p == nil || len(p.At) == 0 || len(p.At) != len(p.Totals) {
		return
	}
	h.at, h.totals = p.At, p.Totals
	for key, l := range p.Loads {
		if w := p.Waits[key]; len(l) == len(p.At) && len(w) == len(p.At) && len(h.loads) < maxUnits {
			h.loads[key], h.waits[key] = l, w
		}
	}
	for key, c := range p.Bases {
		if len(h.last.counters) < maxBases {
			h.last.counters[key] = c
		}
	}
	for key, text := range p.Works {
		var w work
		rest, err := w.queue.Decode(text)
		if err == nil {
			_, err = w.device.Decode(rest)
		}
		if err == nil && len(h.last.works) < maxBases {
			h.last.works[key] = w
		}
	}
	if len(p.Noted) <= maxRows {
		h.noted = p.Noted
	}
	h.trim(steps)
}

// past is what restore takes. It shares nothing that add changes.
func (h *history) past() *past {
	p := &past{At: append([]int64{}, h.at...), Totals: append([]totals{}, h.totals...), Bases: h.last.counters, Works: make(map[string][]byte), Noted: h.noted}
	p.Loads, p.Waits = maps.Clone(h.loads), maps.Clone(h.waits)
	for key := range p.Loads {
		p.Loads[key], p.Waits[key] = append([]byte{}, h.loads[key]...), append([]byte{}, h.waits[key]...)
	}
	for key, w := range h.last.works {
		p.Works[key] = w.device.AppendTo(w.queue.AppendTo(nil))
	}
	return p
}

// trim keeps that many samples at most.
func (h *history) trim(n int) {
	over := len(h.at) - n
	if over <= 0 {
		return
	}
	h.at = append(h.at[:0], h.at[over:]...)
	h.totals = append(h.totals[:0], h.totals[over:]...)
	for key, l := range h.loads {
		h.loads[key] = append(l[:0], l[over:]...)
		h.waits[key] = append(h.waits[key][:0], h.waits[key][over:]...)
	}
}

func ms(t int64) time.Time { return time.UnixMilli(t) }

// unitKey and sessionKey are what rows and rates are found by.
func unitKey(tid int, lun uint16) string { return strconv.Itoa(tid) + "/" + strconv.Itoa(int(lun)) }
func sessionKey(tsih uint16) string      { return "s" + strconv.Itoa(int(tsih)) }

// disks calls f for each logical unit that has blocks.
func disks(st *control.Status, f func(t *target.TargetStatus, l *target.LUNStatus)) {
	for i := range st.Targets {
		t := &st.Targets[i]
		for j := range t.LUNs {
			if l := &t.LUNs[j]; l.Type == "disk" {
				f(t, l)
			}
		}
	}
}

// add takes a sample.
func (h *history) add(now time.Time, st *control.Status) {
	seconds := math.Inf(1) // nothing is known of the time before the first
	if n := len(h.at); n > 0 {
		if d := now.UnixMilli() - h.at[n-1]; d > 0 { // or the clock was set
			seconds = float64(d) / 1000
		}
	}
	next := newSample()
	h.rates = make(map[string]rate, len(h.last.counters))
	var sum totals
	var took work
	disks(st, func(t *target.TargetStatus, l *target.LUNStatus) {
		key := unitKey(t.TID, l.LUN)
		w := workOf(&l.Activity)
		for i, n := range h.rate(next, key, l.Counters, &w, time.Time{}, seconds) {
			sum[i] += n
		}
		r := h.rates[key]
		took.plus(&r.took)
	})
	sum[4] = uint64(took.mean().Microseconds())
	for i := range st.Sessions {
		s := &st.Sessions[i]
		h.rate(next, sessionKey(s.TSIH), s.Counters, nil, s.Started, seconds)
	}
	h.last = next
	h.trim(steps - 1)
	h.at = append(h.at, now.UnixMilli())
	h.totals = append(h.totals, sum)
	h.draw(st)
	h.note(now.UnixMilli(), failures(st))
}

// rate notes the counters of one, and what that did in a second since the sample before, which it returns
// in whole numbers. What has begun since then began at zero. w is nil where durations are not known.
func (h *history) rate(next sample, key string, c scsi.Counters, w *work, started time.Time, seconds float64) (did totals) {
	if len(next.counters) >= maxBases {
		return did
	}
	next.counters[key] = c
	if w != nil {
		next.works[key] = *w
	}
	b, known := h.last.counters[key]
	if n := len(h.at); n > 0 && started.UnixMilli() > h.at[n-1] {
		b, known = scsi.Counters{}, true
	}
	if !known || c.ReadBytes < b.ReadBytes || c.WrittenBytes < b.WrittenBytes || c.Reads < b.Reads || c.Writes < b.Writes {
		return did // new, or another in the place of one that is gone
	}
	per := func(n, m uint64) float64 { return float64(n-m) / seconds }
	r := rate{read: per(c.ReadBytes, b.ReadBytes), written: per(c.WrittenBytes, b.WrittenBytes), commands: per(c.Reads, b.Reads) + per(c.Writes, b.Writes)}
	if before, ok := h.last.works[key]; ok && w != nil {
		r.took = work{w.queue.Since(&before.queue), w.device.Since(&before.device)}
	}
	h.rates[key] = r
	round := func(v float64) uint64 { return uint64(math.Round(v)) }
	return totals{round(r.read), round(r.written), round(per(c.Reads, b.Reads)), round(per(c.Writes, b.Writes))}
}

// draw adds the last sample to the graphs of each logical unit, and forgets those that are gone.
func (h *history) draw(st *control.Status) {
	there := make(map[string]bool)
	disks(st, func(t *target.TargetStatus, l *target.LUNStatus) {
		key := unitKey(t.TID, l.LUN)
		there[key] = true
		if _, ok := h.loads[key]; !ok {
			if len(h.loads) >= maxUnits {
				return
			}
			h.loads[key], h.waits[key] = make([]byte, len(h.at)-1, steps), make([]byte, len(h.at)-1, steps)
		}
		r := h.rates[key]
		h.loads[key] = append(h.loads[key], level(r.read+r.written))
		h.waits[key] = append(h.waits[key], level(float64(r.took.mean().Microseconds())))
	})
	for key := range h.loads {
		if !there[key] {
			delete(h.loads, key)
			delete(h.waits, key)
		}
	}
}

// levelSteps is how many levels lie between a value and its double.
const levelSteps = 7

// level is a value in a byte: zero for less than 1, and then its logarithm, to 5 %, up to 2^36. It is
// what a graph of a few pixels needs.
func level(v float64) byte {
	if v < 1 {
		return 0
	}
	return byte(min(1+math.Round(levelSteps*math.Log2(v)), 255))
}
