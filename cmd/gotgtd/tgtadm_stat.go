// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/overlay"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// stat prints what tgtadm counts. gotgtd counts by session and by logical unit, not by
// both: where a target has one disk that is the same, and tgt's lines are printed. With
// more disks a session has one line, of LUN 0; a logical unit has one of sid 0.
func (c *tgtCommand) stat(st *control.Status, out io.Writer) error {
	t, err := c.shown(st)
	if err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString("tgt lun sid rd_subm(bytes,cmds) rd_done(bytes,cmds) wr_subm(bytes,cmds) wr_done(bytes,cmds) errs\n")
	switch c.mode {
	case "system":
		for i := range st.Targets {
			writeTargetStat(&b, st, &st.Targets[i])
		}
	case "target":
		writeTargetStat(&b, st, t)
	case "logicalunit":
		err = c.writeLUNStat(&b, st, t)
	case "session":
		s := c.session(st, nil)
		if s == nil {
			return overlay.ErrNoSession
		}
		for i := range st.Targets {
			if st.Targets[i].Name == s.Target {
				writeSessionStat(&b, &st.Targets[i], s)
			}
		}
	case "conn":
		if c.session(st, nil) == nil {
			return overlay.ErrNoSession
		}
		return fmt.Errorf("%w: nothing is counted by connections, see --mode session --op stat", overlay.ErrInvalidRequest)
	default:
		return overlay.ErrInvalidRequest
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, b.String())
	return err
}

func writeTargetStat(b *strings.Builder, st *control.Status, t *target.TargetStatus) {
	for i := range st.Sessions {
		if s := &st.Sessions[i]; s.Target == t.Name {
			writeSessionStat(b, t, s)
		}
	}
}

func writeSessionStat(b *strings.Builder, t *target.TargetStatus, s *target.SessionStatus) {
	disk, one := onlyDisk(t)
	if !one {
		writeCounters(b, t.TID, 0, s.TSIH, s.Counters)
		return
	}
	writeCounters(b, t.TID, 0, s.TSIH, scsi.Counters{})
	writeCounters(b, t.TID, disk, s.TSIH, s.Counters)
}

func (c *tgtCommand) writeLUNStat(b *strings.Builder, st *control.Status, t *target.TargetStatus) error {
	at := slices.IndexFunc(t.LUNs, func(l target.LUNStatus) bool { return uint64(l.LUN) == c.lun })
	if at < 0 {
		return overlay.ErrNoLUN
	}
	if _, one := onlyDisk(t); !one && t.LUNs[at].Type != "controller" {
		writeCounters(b, t.TID, t.LUNs[at].LUN, 0, t.LUNs[at].Counters)
		return nil
	}
	for _, s := range st.Sessions {
		if s.Target != t.Name {
			continue
		}
		if t.LUNs[at].Type == "controller" {
			s.Counters = scsi.Counters{}
		}
		writeCounters(b, t.TID, t.LUNs[at].LUN, s.TSIH, s.Counters)
	}
	return nil
}

// onlyDisk returns the number of the target's disk, and whether it has one, beside
// the controller at LUN 0.
func onlyDisk(t *target.TargetStatus) (lun uint16, one bool) {
	n, controller := 0, false
	for _, l := range t.LUNs {
		if l.Type == "controller" {
			controller = true
			continue
		}
		lun, n = l.LUN, n+1
	}
	return lun, n == 1 && controller
}

func writeCounters(b *strings.Builder, tid int, lun, tsih uint16, n scsi.Counters) {
	fmt.Fprintf(b, "%3d %3d %3d %12d %6d %12d %6d %12d %6d %12d %6d %4d\n", tid, lun, tsih,
		n.ReadBytes, n.Reads, n.ReadBytes, n.Reads, n.WrittenBytes, n.Writes, n.WrittenBytes, n.Writes, n.Errors)
}
