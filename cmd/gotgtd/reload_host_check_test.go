// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/plan"
)

// checkSame: the hosts have not noticed anything.
func (w *world) checkSame() {
	for _, h := range w.hosts {
		if h.asked.Load() {
			w.t.Fatalf("%v was asked to log out", h)
		}
		w.sameNumbers(h, slices.Sorted(maps.Keys(h.disks)))
		for _, lun := range slices.Sorted(maps.Keys(h.disks)) {
			w.checkDisk(h, lun, nil, false)
		}
	}
}

func (w *world) sameNumbers(h *host, want []uint16) {
	got, err := h.visible(w.t.Context())
	if slices.Sort(got); err != nil || !slices.Equal(got, want) {
		w.t.Fatalf("%v sees the LUNs %v, want %v: %v", h, got, want, err)
	}
}

// checkDisk looks at a disk that is there before and after a reload; changes are
// those of the plan that are about it.
func (w *world) checkDisk(h *host, lun uint16, changes []plan.Change, force bool) {
	d := h.disks[lun]
	fatal := func(format string, args ...any) {
		w.t.Helper()
		w.t.Fatalf("%v LUN %d: %s; codes %x, was %+v", h, lun, fmt.Sprintf(format, args...), d.codes, d.view)
	}
	last, err := h.probe(w.t.Context(), lun)
	if err != nil {
		fatal("%v", err)
	}
	other := last == codeNoUnit
	if d.other = other; other && !slices.Contains(d.codes, codeInquiryData) {
		fatal("it has to be met anew, without INQUIRY DATA HAS CHANGED")
	}
	now, err := h.learn(w.t.Context(), lun)
	if code, _ := senseOf(err); code>>8 == 0x3f || code == codeCapacity || code == 0x2a01 {
		// What probe can't take, since writes are refused for another reason first.
		d.told(code)
		now, err = h.learn(w.t.Context(), lun)
	}
	if err != nil {
		fatal("%v", err)
	}
	if now.stamp == noImage || d.stamp == noImage {
		w.checkReadiness(h, lun, now, changes, force)
		return
	}
	refused := slices.ContainsFunc(changes, func(c plan.Change) bool { return c.Op == "~" && (c.Refused != "" || h.late && force) })
	switch {
	case (now.identity == d.identity || !other && w.toldOtherwise(d, changes)) && now.stamp == d.stamp && now.capacity.BlockSize == d.capacity.BlockSize:
		if now.keys != d.keys && !other {
			fatal("the registrations are %s", now.keys)
		}
		if now.capacity != d.capacity && !w.resized(changes) && !slices.Contains(d.codes, codeCapacity) {
			fatal("the capacity is %+v, and nobody said so", now.capacity)
		}
	case !refused:
		fatal("it is another one, %+v; the plan says %+v", now, changes)
	case !other:
		fatal("it is another one, %+v, and the host was not told", now)
	case strings.Trim(now.keys, "0") != "":
		fatal("another disk has its registrations, %s", now.keys)
	}
	if other && !refused {
		fatal("the host is told that it is another one; the plan says %+v", changes)
	}
	if len(changes) == 0 && len(slices.DeleteFunc(slices.Clone(d.codes), func(c uint16) bool {
		return c == codeReportedLUNs || c == codeNotReady && now.stamp == noImage || c>>8 == 0x27 // WRITE PROTECTED
	})) > 0 {
		fatal("sense codes without a change")
	}
	h.disks[lun] = now.disk()
	if now.stamp != noImage && h.write(w.t.Context(), lun) == nil && w.written(h, now.stamp) != now.stamp+" by "+h.name {
		fatal("what it writes is not in %s", now.stamp)
	}
}

// checkReadiness looks at a disk that is not ready now, or was not before a reload.
func (w *world) checkReadiness(h *host, lun uint16, now view, changes []plan.Change, force bool) {
	d := h.disks[lun]
	switch {
	case now.stamp == d.stamp:
	case now.stamp == noImage && !slices.ContainsFunc(changes, func(c plan.Change) bool { return c.Refused != "" || h.late && force }):
		w.t.Fatalf("%v LUN %d is not ready any more; the plan says %+v", h, lun, changes)
	case d.stamp == noImage && (!slices.Contains(d.codes, codeReady) && !slices.Contains(d.codes, codeInquiryData) || len(changes) == 0):
		w.t.Fatalf("%v LUN %d is ready now, codes %x; the plan says %+v", h, lun, d.codes, changes)
	}
	h.disks[lun] = now.disk()
}

// toldOtherwise: the same disk tells by INQUIRY what tgt does, or does no more, or another
// revision, and the host knows it.
func (w *world) toldOtherwise(d *disk, changes []plan.Change) bool {
	return slices.Contains(d.codes, codeInquiryData) &&
		slices.ContainsFunc(changes, func(c plan.Change) bool {
			return strings.Contains(c.What, "tgt-identification") || strings.Contains(c.What, "revision")
		})
}

func (w *world) resized(changes []plan.Change) bool {
	return slices.ContainsFunc(changes, func(c plan.Change) bool { return strings.Contains(c.What, "from") })
}

// checkHost looks through a host's eyes after a reload.
func (w *world) checkHost(h *host, p *plan.Plan, force bool) {
	var about []plan.Change // the target
	byLUN := make(map[uint16][]plan.Change)
	for _, c := range p.Changes {
		switch {
		case c.Target != h.target:
		case c.LUN == nil:
			about = append(about, c)
		default:
			byLUN[*c.LUN] = append(byLUN[*c.LUN], c)
		}
	}
	if w.mustLeave(h) {
		if len(about) == 0 {
			w.t.Fatalf("%v may not stay, and the plan does not say so", h)
		}
		for lun, d := range h.disks {
			if d.used && !force {
				w.t.Fatalf("%v may not stay, and was using LUN %d: %+v", h, lun, about)
			}
		}
		for until := time.Now().Add(2 * time.Second); !h.asked.Load(); time.Sleep(time.Millisecond) {
			if time.Now().After(until) {
				w.t.Fatalf("%v was not asked to log out", h)
			}
		}
		h.close()
		w.hosts = slices.DeleteFunc(w.hosts, func(o *host) bool { return o == h })
		return
	}
	if h.asked.Load() {
		w.t.Fatalf("%v was asked to log out", h)
	}
	var list []uint16
	reported, differs := false, false
	for _, lun := range slices.Sorted(maps.Keys(h.disks)) {
		d := h.disks[lun]
		if !w.sees(h, lun) {
			w.checkGone(h, lun, byLUN[lun], force)
			differs = true
			continue
		}
		w.checkDisk(h, lun, byLUN[lun], force)
		list = append(list, lun)
		reported = reported || slices.Contains(d.codes, codeReportedLUNs)
		differs = differs || d.other
	}
	met := len(list)
	for _, l := range w.conf(h.target).LUNs {
		if !slices.Contains(list, l.Number) && w.sees(h, l.Number) {
			w.checkNew(h, l.Number, byLUN[l.Number])
			list = append(list, l.Number)
			differs = true
		}
	}
	told := slices.ContainsFunc(p.Changes, func(c plan.Change) bool { return c.Target == h.target && c.LUN != nil }) // of what is masked, too
	if met > 0 && (reported && !differs && !told || differs && !reported) {
		w.t.Fatalf("%v is told REPORTED LUNS DATA HAS CHANGED: %v; disks came or went: %v", h, reported, differs)
	}
	slices.Sort(list)
	w.sameNumbers(h, list)
}

// checkGone looks for a disk that is not there any more, or not for this host.
func (w *world) checkGone(h *host, lun uint16, changes []plan.Change, force bool) {
	d := h.disks[lun]
	if last, err := h.probe(w.t.Context(), lun); err != nil || last != codeNoUnit {
		w.t.Fatalf("%v LUN %d is gone, and a write ends with %#x, %v", h, lun, last, err)
	}
	i := slices.IndexFunc(changes, func(c plan.Change) bool { return c.Op == "-" })
	switch {
	case i < 0 && !h.late:
		w.t.Fatalf("%v LUN %d is gone, and the plan does not say so: %+v", h, lun, changes)
	case d.used && !force:
		w.t.Fatalf("%v LUN %d was in use and is gone: %+v", h, lun, changes)
	}
	delete(h.disks, lun)
}

// checkNew meets a disk that has come.
func (w *world) checkNew(h *host, lun uint16, changes []plan.Change) {
	if !h.late && !slices.ContainsFunc(changes, func(c plan.Change) bool { return c.Op == "+" }) {
		w.t.Fatalf("%v LUN %d is new, and the plan does not say so: %+v", h, lun, changes)
	}
	h.disks[lun] = view{stamp: "nothing", capacity: initiator.Capacity{BlockSize: 512}}.disk()
	if last, err := h.probe(w.t.Context(), lun); err != nil || last != codeNoUnit {
		w.t.Fatalf("%v LUN %d is new, and a write before INQUIRY ends with %#x: %v", h, lun, last, err)
	}
	v, err := h.learn(w.t.Context(), lun)
	if code, _ := senseOf(err); code == codeReportedLUNs {
		v, err = h.learn(w.t.Context(), lun)
	}
	if err != nil {
		w.t.Fatalf("%v LUN %d is new: %v", h, lun, err)
	}
	h.disks[lun] = v.disk()
}

// mustLeave: the target is not there any more, or not for this host.
func (w *world) mustLeave(h *host) bool {
	t := w.conf(h.target)
	return t == nil || len(t.Access.Initiators) > 0 && !slices.Contains(t.Access.Initiators, h.name)
}

// sees: the logical unit is not masked from the host.
func (w *world) sees(h *host, lun uint16) bool {
	for _, l := range w.conf(h.target).LUNs {
		if l.Number == lun {
			return len(l.Access.Initiators) == 0 || slices.Contains(l.Access.Initiators, h.name)
		}
	}
	return false
}
