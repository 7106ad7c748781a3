// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/scsi/latency"
)

// topView is what the rows of top are about.
type topView string

// The views of top.
const (
	topLUNs       topView = "luns"
	topSessions   topView = "sessions"
	topInitiators topView = "initiators"
)

// topViews are all views.
func topViews() []topView { return []topView{topLUNs, topSessions, topInitiators} }

// topOrder is what the rows of top are sorted by, the highest first.
type topOrder string

// The orders of top.
const (
	byIO      topOrder = "io"
	byBytes   topOrder = "bytes"
	byLatency topOrder = "latency" // of logical units; nobody measures others
	byQueue   topOrder = "queue"
)

// topOrders are the orders that a view has.
func topOrders(v topView) []topOrder {
	if v == topLUNs {
		return []topOrder{byIO, byBytes, byLatency, byQueue}
	}
	return []topOrder{byIO, byBytes, byQueue}
}

// topSample is a status, and when it was taken.
type topSample struct {
	st *control.Status
	at time.Time
}

// topRates is what was done, a second.
type topRates struct{ reads, writes, readBytes, writtenBytes, errors float64 }

func (r topRates) commands() float64 { return r.reads + r.writes }
func (r topRates) bytes() float64    { return r.readBytes + r.writtenBytes }

func (r topRates) plus(o topRates) topRates {
	return topRates{r.reads + o.reads, r.writes + o.writes, r.readBytes + o.readBytes, r.writtenBytes + o.writtenBytes, r.errors + o.errors}
}

// topRow is a logical unit, a session or an initiator.
type topRow struct {
	cells   []string // what it is
	rates   topRates
	wait    time.Duration // mean time of the commands that have ended until they were started
	device  time.Duration // and then in the backing store; 0: there were none
	slowest time.Duration // which 99 of 100 of them did not exceed there
	queue   int           // commands that are under way
}

// since returns rates from counters. Counters that are lower than before are those of a daemon that has
// been started again.
func since(before, now scsi.Counters, took time.Duration) topRates {
	if before.Reads > now.Reads || before.Writes > now.Writes || before.ReadBytes > now.ReadBytes || before.WrittenBytes > now.WrittenBytes {
		before = scsi.Counters{}
	}
	per := func(from, to uint64) float64 {
		if took <= 0 || from > to {
			return 0
		}
		return float64(to-from) / took.Seconds()
	}
	return topRates{
		per(before.Reads, now.Reads), per(before.Writes, now.Writes), per(before.ReadBytes, now.ReadBytes),
		per(before.WrittenBytes, now.WrittenBytes), per(before.Errors, now.Errors),
	}
}

// topRows returns the rows of a view from two samples, and their sum.
func topRows(v topView, before, now *topSample) (rows []topRow, sum topRates) {
	took := now.at.Sub(before.at)
	switch v {
	case topSessions:
		rows = sessionRows(before.st, now.st, took, now.at)
	case topInitiators:
		rows = initiatorRows(before.st, now.st, took)
	default:
		rows = lunRows(before.st, now.st, took)
	}
	for i := range rows {
		sum = sum.plus(rows[i].rates)
	}
	return rows, sum
}

// lunName tells logical units apart.
type lunName struct {
	target string
	lun    uint16
	naa    string // another disk begins anew
}

func lunRows(before, now *control.Status, took time.Duration) (rows []topRow) {
	was := map[lunName]*target.LUNStatus{}
	eachLUN(before, func(n lunName, l *target.LUNStatus) { was[n] = l })
	eachLUN(now, func(n lunName, l *target.LUNStatus) {
		state := "ok"
		switch {
		case l.Error != "":
			state = "not ready"
		case !l.Online:
			state = "offline"
		case l.ReadOnly:
			state = "read-only"
		}
		r := topRow{cells: []string{n.target, fmt.Sprint(n.lun), state, printable(l.StorePath, "-")}}
		r.queue = l.Inflight
		if b := was[n]; b != nil {
			r.rates = since(b.Counters, l.Counters, took)
			r.setLatency(b.Activity.Commands, l.Activity.Commands)
		}
		rows = append(rows, r)
	})
	return rows
}

// setLatency says how long the commands of all kinds took that have ended between two samples.
func (r *topRow) setLatency(before, now map[string]scsi.Work) {
	var wait, device latency.Counts
	for kind, w := range now {
		b := before[kind]
		waited, worked := w.Queue.Since(&b.Queue), w.Device.Since(&b.Device)
		wait.Plus(&waited)
		device.Plus(&worked)
	}
	r.wait, r.device, r.slowest = wait.Mean(), device.Mean(), device.Quantile(0.99)
}

func eachLUN(st *control.Status, f func(lunName, *target.LUNStatus)) {
	for i := range st.Targets {
		t := &st.Targets[i]
		for j := range t.LUNs {
			if l := &t.LUNs[j]; l.Type != "controller" {
				f(lunName{t.Name, l.LUN, l.NAA}, l)
			}
		}
	}
}

// sessionName tells sessions apart: a TSIH is used again.
type sessionName struct {
	tsih    uint16
	isid    string
	started time.Time
}

func nameOf(s *target.SessionStatus) sessionName {
	return sessionName{s.TSIH, s.ISID, s.Started.UTC().Round(0)}
}

// sessionRates returns the rates of all sessions of now. One that was not there before has done all it has since.
func sessionRates(before, now *control.Status, took time.Duration) []topRates {
	was := map[sessionName]scsi.Counters{}
	for i := range before.Sessions {
		was[nameOf(&before.Sessions[i])] = before.Sessions[i].Counters
	}
	list := make([]topRates, len(now.Sessions))
	for i := range now.Sessions {
		s := &now.Sessions[i]
		list[i] = since(was[nameOf(s)], s.Counters, took)
	}
	return list
}

func sessionRows(before, now *control.Status, took time.Duration, at time.Time) (rows []topRow) {
	for i, r := range sessionRates(before, now, took) {
		s := &now.Sessions[i]
		var addrs []string
		for _, c := range s.Connections {
			addrs = append(addrs, c.Remote.String())
		}
		name := cmp.Or(s.Target, "(discovery)")
		rows = append(rows, topRow{
			cells: []string{fmt.Sprint(s.TSIH), printable(s.Initiator, "-"), name, strings.Join(addrs, ","), age(at.Sub(s.Started))},
			rates: r, queue: s.Tasks,
		})
	}
	return rows
}

func initiatorRows(before, now *control.Status, took time.Duration) (rows []topRow) {
	place, count := map[string]int{}, map[string]int{}
	for i, r := range sessionRates(before, now, took) {
		s := &now.Sessions[i]
		n, ok := place[s.Initiator]
		if !ok {
			n = len(rows)
			place[s.Initiator] = n
			rows = append(rows, topRow{})
		}
		row := &rows[n]
		count[s.Initiator]++
		row.rates, row.queue = row.rates.plus(r), row.queue+s.Tasks
		row.cells = []string{printable(s.Initiator, "-"), fmt.Sprint(count[s.Initiator])}
	}
	return rows
}

// sortTop sorts rows, the highest first unless reverse, and those that are equal by what they are.
func sortTop(rows []topRow, by topOrder, reverse bool) {
	slices.SortStableFunc(rows, func(x, y topRow) int {
		n := 0
		switch by {
		case byBytes:
			n = cmp.Compare(y.rates.bytes(), x.rates.bytes())
		case byLatency:
			n = cmp.Compare(y.wait+y.device, x.wait+x.device)
		case byQueue:
			n = cmp.Compare(y.queue, x.queue)
		default:
			n = cmp.Compare(y.rates.commands(), x.rates.commands())
		}
		if reverse {
			n = -n
		}
		return n
	})
}
