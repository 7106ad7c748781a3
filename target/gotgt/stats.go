// SPDX-License-Identifier: Apache-2.0

package gotgt

import (
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi"

	engine "github.com/gotgtd/gotgtd/target/scsi"
)

// stats count commands. A nil one counts nothing.
type stats struct {
	commands    [256]atomic.Int64 // by operation code
	read, write transfers
}

// transfers count reads or writes.
type transfers struct {
	commands atomic.Int64
	time     atomic.Int64 // nanoseconds
	bytes    atomic.Int64
}

func (t *transfers) add(took time.Duration, bytes uint32) {
	t.commands.Add(1)
	t.time.Add(int64(took))
	t.bytes.Add(int64(bytes))
}

// observe counts a command that has ended.
func (s *stats) observe(c *engine.Command, took time.Duration) {
	s.commands[c.CDB[0]].Add(1)
	switch api.SCSICommandType(c.CDB[0]) {
	case api.READ_6, api.READ_10, api.READ_12, api.READ_16:
		s.read.add(took, c.InExpected)
	case api.WRITE_6, api.WRITE_10, api.WRITE_12, api.WRITE_16:
		s.write.add(took, c.OutExpected)
	}
}

// snapshot returns the counters as gotgt has them.
func (s *stats) snapshot() scsi.Stats {
	out := scsi.Stats{SCSIIOCount: map[int]int64{}}
	if s == nil {
		return out
	}
	for code := range s.commands {
		if n := s.commands[code].Load(); n != 0 {
			out.SCSIIOCount[code] = n
		}
	}
	r, w := &s.read, &s.write
	out.ReadIOPS, out.TotalReadTime, out.TotalReadBlockCount = r.commands.Load(), r.time.Load(), r.bytes.Load()
	out.WriteIOPS, out.TotalWriteTime, out.TotalWriteBlockCount = w.commands.Load(), w.time.Load(), w.bytes.Load()
	return out
}

// restore goes on counting from what another process had counted.
func (s *stats) restore(from *scsi.Stats) {
	for code, n := range from.SCSIIOCount {
		if code >= 0 && code < len(s.commands) {
			s.commands[code].Store(n)
		}
	}
	for t, n := range map[*transfers][3]int64{
		&s.read:  {from.ReadIOPS, from.TotalReadTime, from.TotalReadBlockCount},
		&s.write: {from.WriteIOPS, from.TotalWriteTime, from.TotalWriteBlockCount},
	} {
		t.commands.Store(n[0])
		t.time.Store(n[1])
		t.bytes.Store(n[2])
	}
}

// handedOver is what a Driver hands over beside its server's sessions: a
// target.State.
type handedOver Driver

// driverSnapshot is its form in the handoff.
type driverSnapshot struct {
	Stats   scsi.Stats
	Devices map[string]map[uint16]uint64 // device numbers by target and LUN
}

// Save is called during an upgrade, which holds mu.
func (h *handedOver) Save() ([]byte, error) {
	s := driverSnapshot{Stats: h.stats.snapshot(), Devices: make(map[string]map[uint16]uint64)}
	for _, t := range h.targets {
		s.Devices[t.name] = t.devices()
	}
	return json.Marshal(s)
}

// Load is called by Run, which holds mu. It fails, and with it the upgrade,
// if a logical unit would become another device under its initiators.
func (h *handedOver) Load(b []byte) error {
	var s driverSnapshot
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("can't read the driver's state: %w", err)
	}
	for _, t := range h.targets {
		before := s.Devices[t.name]
		for n, id := range t.devices() {
			if was, ok := before[n]; ok && was != id {
				return fmt.Errorf("target %s LUN %d was device %d and is device %d in the new process: a device must keep its number, which initiators know it by",
					t.name, n, was, id)
			}
		}
	}
	if h.stats != nil {
		h.stats.restore(&s.Stats)
	}
	return nil
}

// devices returns the numbers of the target's devices by LUN.
func (t *driverTarget) devices() map[uint16]uint64 {
	ids := make(map[uint16]uint64)
	for n, u := range t.units {
		ids[n] = u.lu.UUID
	}
	return ids
}
