// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
	"time"

	"github.com/gotgtd/gotgtd/target/scsi/latency"
)

// workKind is what a command makes a store do, as far as those who watch it care.
type workKind uint8

// The order is that of snapshots.
const (
	workRead workKind = iota
	workWrite
	workFlush
	workUnmap
	workOther
	workKinds
)

var workNames = [workKinds]string{"read", "write", "flush", "unmap", "other"}

// WorkKinds returns the kinds of commands that [LogicalUnit.Activity] tells apart.
func WorkKinds() []string { return workNames[:] }

// workOf returns the kind of a command, by its operation code: commands that are refused have
// one too. What reads or writes blocks besides something else is a write.
func workOf(cdb *[16]byte) workKind {
	const writeSame10, writeSame16, unmapBit = 0x41, 0x93, 0x08
	switch cdb[0] {
	case 0x08, 0x28, 0xa8, 0x88:
		return workRead
	case writeSame10, writeSame16:
		if cdb[1]&unmapBit != 0 {
			return workUnmap
		}
		return workWrite
	case 0x0a, 0x2a, 0xaa, 0x8a, 0x2e, 0xae, 0x8e, 0x89, 0x8b:
		return workWrite
	case 0x35, 0x91:
		return workFlush
	case 0x42:
		return workUnmap
	}
	return workOther
}

// Outcomes other than GOOD and CONDITION MET: a sense key each, and behind these the statuses
// without sense data.
const (
	failedReservation = 16 + iota
	failedTaskSetFull
	failedKinds
)

// failureNames are the outcomes that there can be, by their place in the counters; "" for
// sense keys that this device server does not use.
var failureNames = [failedKinds]string{
	keyNotReady: "not_ready", keyMediumError: "medium_error", keyHardwareError: "hardware_error",
	keyIllegalRequest: "illegal_request", keyUnitAttention: "unit_attention", keyDataProtect: "data_protect",
	keyAbortedCommand: "aborted_command", keyMiscompare: "miscompare",
	failedReservation: "reservation_conflict", failedTaskSetFull: "task_set_full",
}

// Failures returns the outcomes that [Activity] counts.
func Failures() (list []string) {
	for _, name := range failureNames {
		if name != "" {
			list = append(list, name)
		}
	}
	return list
}

// epoch is what the instants of commands count from.
var epoch = time.Now()

// now is an instant, never 0. It costs half of what time.Now does.
func now() time.Duration { return time.Since(epoch) + 1 }

// activity counts the commands of a logical unit as they end, and how long they took.
type activity struct {
	work     [workKinds]atomic.Pointer[workTimes] // made with the first command of the kind that is executed
	refused  [workKinds]atomic.Uint64             // ended without having been executed
	failures [failedKinds]atomic.Uint64
}

// workTimes has the durations of one kind of command. A command that was executed in place has
// not waited: one addition counts it in both stages.
type workTimes struct {
	inPlace latency.Histogram // in the store, of those that did not wait
	queue   latency.Histogram // until they began, and between slices, of the others
	device  latency.Histogram // in the store, of the others
}

// of returns the durations of a kind.
func (a *activity) of(k workKind) *workTimes {
	if w := a.work[k].Load(); w != nil {
		return w
	}
	a.work[k].CompareAndSwap(nil, new(workTimes))
	return a.work[k].Load()
}

// ended counts a command that has ended.
func (a *activity) ended(c *Command) {
	k, x := workOf(&c.CDB), &c.exec
	switch {
	case x.batch != nil: // which has the time
	case x.began == 0:
		a.refused[k].Add(1)
	case x.began == x.arrived:
		a.of(k).inPlace.Record(now() - x.began)
	default:
		w := a.of(k)
		w.queue.Record(now() - x.arrived - x.inStore)
		w.device.Record(x.inStore)
	}
	if c.Status != Good && c.Status != ConditionMet {
		a.failed(c)
	}
}

// failed counts how a command has failed.
func (a *activity) failed(c *Command) {
	switch c.Status {
	case CheckCondition:
		key := c.Sense[2] & 0x0f
		if c.Sense[0]&0x7f >= 0x72 { // descriptor format
			key = c.Sense[1] & 0x0f
		}
		a.failures[key].Add(1)
	case ReservationConflict:
		a.failures[failedReservation].Add(1)
	case TaskSetFull:
		a.failures[failedTaskSetFull].Add(1)
	}
}

// Arrive notes that a command has arrived with all its data and waits to be executed.
// [Nexus.TryExecute] and [Nexus.Execute] do so too; a transport calls it when it does not get that far yet.
func (c *Command) Arrive() {
	if c.exec.arrived == 0 {
		c.exec.arrived = now()
	}
}

// An Activity is what a logical unit has done since the start, over handoffs.
type Activity struct {
	Commands map[string]Work   `json:"commands,omitempty"` // by kind, see [WorkKinds]; those that there were
	Failures map[string]uint64 `json:"failures,omitempty"` // commands that did not end with GOOD, see [Failures]
}

// Work is what was done for the commands of one kind.
type Work struct {
	Count uint64 `json:"count"` // commands that have ended, the failed and refused ones included

	// How long those that were executed took: from the arrival of a command and its data to the
	// start, with what it waits between slices, and in the backing store. A command that waits
	// while it is handed over to another process has arrived there anew.
	Queue  latency.Counts `json:"queue"`
	Device latency.Counts `json:"device"`
}

// Activity returns what the logical unit has done.
func (lu *LogicalUnit) Activity() Activity {
	a := Activity{Commands: make(map[string]Work), Failures: make(map[string]uint64)}
	for k, name := range workNames {
		w := Work{Count: lu.activity.refused[k].Load()}
		if t := lu.activity.work[k].Load(); t != nil {
			inPlace := t.inPlace.Load()
			w.Queue, w.Device = t.queue.Load(), t.device.Load()
			w.Queue.Buckets[0] += inPlace.Count()
			w.Device.Plus(&inPlace)
			w.Count += w.Device.Count()
		}
		if w.Count > 0 {
			a.Commands[name] = w
		}
	}
	for i, name := range failureNames {
		if n := lu.activity.failures[i].Load(); n > 0 {
			a.Failures[name] = n
		}
	}
	return a
}

// The activity in a snapshot is in varints, since a thousand logical units have a hundred
// thousand numbers: how many kinds there are, and for each how many commands were refused,
// whether there are durations, and these; then the failures in the same way.

// append encodes a for a snapshot.
func (a *activity) append(b []byte) []byte {
	b = append(b, byte(workKinds))
	for k := range a.work {
		b = binary.AppendUvarint(b, a.refused[k].Load())
		t := a.work[k].Load()
		if t == nil {
			b = append(b, 0)
			continue
		}
		b = append(b, 1)
		for _, h := range []*latency.Histogram{&t.inPlace, &t.queue, &t.device} {
			c := h.Load()
			b = c.AppendTo(b)
		}
	}
	b = append(b, failedKinds)
	for i := range a.failures {
		b = binary.AppendUvarint(b, a.failures[i].Load())
	}
	return b
}

// errActivity stands for an activity that can't be read.
var errActivity = errors.New("the activity in the snapshot can't be read")

// add counts what another process has counted; nothing from one that does not tell it. Kinds
// and failures that this process does not know are passed over.
func (a *activity) add(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	kinds, b := int(b[0]), b[1:]
	for k := range kinds {
		refused, n := binary.Uvarint(b)
		if n <= 0 || len(b) == n {
			return errActivity
		}
		executed := b[n] != 0
		b = b[n+1:]
		var counts [3]latency.Counts
		for i := range counts {
			var err error
			if !executed {
				break
			}
			if b, err = counts[i].Decode(b); err != nil {
				return errActivity
			}
		}
		if k >= int(workKinds) {
			continue
		}
		a.refused[k].Add(refused)
		if executed {
			t := a.of(workKind(k))
			t.inPlace.Add(&counts[0])
			t.queue.Add(&counts[1])
			t.device.Add(&counts[2])
		}
	}
	return a.addFailures(b)
}

func (a *activity) addFailures(b []byte) error {
	if len(b) == 0 {
		return errActivity
	}
	failures, b := int(b[0]), b[1:]
	for i := range failures {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return errActivity
		}
		if b = b[n:]; i < len(a.failures) {
			a.failures[i].Add(v)
		}
	}
	return nil
}
