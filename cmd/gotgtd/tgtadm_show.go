// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/overlay"
)

// show prints what tgtadm shows.
func (c *tgtCommand) show(st *control.Status, out io.Writer) error {
	var t *target.TargetStatus
	for i := range st.Targets {
		if st.Targets[i].TID == c.tid {
			t = &st.Targets[i]
		}
	}
	if c.given('t') && t == nil && (c.mode == "target" || c.mode == "conn") {
		return overlay.ErrNoTarget
	}
	var b strings.Builder
	switch {
	case c.op == "stat":
		writeStat(&b, st, c.tid)
	case c.mode == "system":
		writeSystem(&b, st)
	case c.mode == "portal":
		for _, p := range st.Portals {
			fmt.Fprintf(&b, "Portal: %s,%d\n", p.Address, p.Group)
		}
	case c.mode == "account":
		if len(st.Accounts) > 0 {
			b.WriteString("Account list:\n")
		}
		for _, a := range slices.Backward(st.Accounts) { // the latest first, as in tgt
			fmt.Fprintf(&b, "    %s\n", a)
		}
	case c.mode == "conn" && t != nil:
		writeConnections(&b, st, t.Name)
	case c.mode == "target" && t != nil:
		writeTargetParams(&b, st, t.Name)
	case c.mode == "target":
		for i := range st.Targets {
			writeTarget(&b, &st.Targets[i], st.Sessions)
		}
	default:
		return overlay.ErrInvalidRequest
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// writeSystem prints what tgt says of itself, with what gotgtd has of it.
func writeSystem(b *strings.Builder, st *control.Status) {
	b.WriteString("System:\n    State: ready\n    debug: off\n" + tgtDrivers +
		"Backing stores:\n    rdwr (bsoflags sync:direct)\n    aio\nDevice types:\n    disk\n    controller\n")
	if len(st.DiscoveryAccounts) > 0 || st.DiscoveryOutAccount != "" {
		b.WriteString("    Account information:\n\n")
	}
	for _, a := range st.DiscoveryAccounts {
		fmt.Fprintf(b, "    %s\n", a)
	}
	if a := st.DiscoveryOutAccount; a != "" {
		fmt.Fprintf(b, "    %s (outgoing)\n", a)
	}
	b.WriteString("iSNS:\n    iSNS=Off\n    iSNSServerIP=\n    iSNSServerPort=3205\n    iSNSAccessControl=Off\n")
}

const tgtDrivers = "LLDs:\n    iscsi: ready\n    iser: error\n"

func writeStat(b *strings.Builder, st *control.Status, tid int) {
	b.WriteString("tgt lun sid rd_subm(bytes,cmds) rd_done(bytes,cmds) wr_subm(bytes,cmds) wr_done(bytes,cmds) errs\n")
	for _, t := range st.Targets {
		if tid != 0 && t.TID != tid {
			continue
		}
		for _, s := range st.Sessions {
			if s.Target != t.Name {
				continue
			}
			n := s.Counters
			fmt.Fprintf(b, "%3d %3d %3d %16d %5d %16d %5d %16d %5d %16d %5d %4d\n", t.TID, 0, s.TSIH,
				n.ReadBytes, n.Reads, n.ReadBytes, n.Reads, n.WrittenBytes, n.Writes, n.WrittenBytes, n.Writes, n.Errors)
		}
	}
}

func writeConnections(b *strings.Builder, st *control.Status, name string) {
	for _, s := range st.Sessions {
		if s.Target != name {
			continue
		}
		fmt.Fprintf(b, "Session: %d\n", s.TSIH)
		for _, c := range s.Connections {
			fmt.Fprintf(b, "    Connection: %d\n        Initiator: %s\n        IP Address: %s\n", c.CID, printable(s.Initiator, "none"), c.Remote.Addr())
		}
	}
}

// writeTargetParams prints what the target has for all its sessions.
func writeTargetParams(b *strings.Builder, st *control.Status, name string) {
	for _, t := range st.Targets {
		if t.Name == name {
			fmt.Fprintf(b, "state=%s\n", t.State)
		}
	}
}

// endSession closes a session's connection: with the last one goes the session.
func (c *tgtCommand) endSession(ctx context.Context, d *control.Client, st *control.Status) error {
	name := ""
	for _, t := range st.Targets {
		if t.TID == c.tid {
			name = t.Name
		}
	}
	if name == "" {
		return overlay.ErrNoTarget
	}
	for _, s := range st.Sessions {
		if uint64(s.TSIH) == c.sid && s.Target == name {
			_, err := d.EndSession(ctx, s.TSIH, 0)
			if err != nil && control.TgtWords(err) == "" {
				err = errors.Join(overlay.ErrInvalidRequest, err)
			}
			return err
		}
	}
	return overlay.ErrNoSession
}
