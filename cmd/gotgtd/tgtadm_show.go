// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/overlay"
)

// show prints what tgtadm shows.
func (c *tgtCommand) show(ctx context.Context, d *control.Client, st *control.Status, out io.Writer) error {
	t, err := c.shown(st)
	if err != nil {
		return err
	}
	var b strings.Builder
	switch {
	case c.mode == "system":
		writeSystem(&b, st)
	case c.mode == "lld":
		b.WriteString("LLDs:\n    iscsi: ready\n")
		for i := range st.Targets {
			fmt.Fprintf(&b, "        Target %d: %s\n", st.Targets[i].TID, st.Targets[i].Name)
		}
		b.WriteString("    iser: error\n")
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
	case c.mode == "conn":
		writeConnections(&b, st, t.Name)
	case c.mode == "target" && t != nil:
		err = writeTargetParams(ctx, d, &b, t.Name)
	case c.mode == "target":
		writeTargets(&b, st, tgtSize)
	default:
		err = overlay.ErrInvalidRequest
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, b.String())
	return err
}

// shown is the target that the command names, nil if it is about none.
func (c *tgtCommand) shown(st *control.Status) (*target.TargetStatus, error) {
	if c.mode != "conn" && (c.mode != "target" && c.mode != "logicalunit" || !c.given('t')) {
		return nil, nil
	}
	for i := range st.Targets {
		if st.Targets[i].TID == c.tid {
			return &st.Targets[i], nil
		}
	}
	return nil, overlay.ErrNoTarget
}

// writeSystem prints what tgt says of itself, with what gotgtd has of it.
func writeSystem(b *strings.Builder, st *control.Status) {
	b.WriteString("System:\n    State: ready\n    debug: off\nLLDs:\n    iscsi: ready\n    iser: error\n" +
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

// writeTargetParams prints what the target offers to its sessions, under tgt's names.
func writeTargetParams(ctx context.Context, d *control.Client, b *strings.Builder, name string) error {
	conf, err := runningConfig(ctx, d)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(conf.Targets, func(t config.Target) bool { return t.Name == name })
	if at < 0 {
		return overlay.ErrNoTarget
	}
	for _, p := range targetParams(&conf.Targets[at].Parameters) {
		fmt.Fprintf(b, "%s=%s\n", p.Name, p.Value)
	}
	return nil
}

// targetParams are the parameters of a target's sessions, under tgt's names and in its order.
func targetParams(p *config.Parameters) []overlay.Param {
	interval, count := 0, 0
	if p.NOPInterval > 0 {
		interval, count = int(p.NOPInterval/time.Second), int((p.NOPTimeout+p.NOPInterval-1)/p.NOPInterval)
	}
	most := cmp.Or(p.MaxXmitDataSegmentLength, 1<<24-1)
	list := []overlay.Param{}
	for _, line := range []struct {
		name  string
		value any
	}{
		{"nop_interval", interval}, {"nop_count", count}, {"MaxRecvDataSegmentLength", p.MaxRecvDataSegmentLength},
		{"HeaderDigest", strings.Join(p.HeaderDigest, ",")}, {"DataDigest", strings.Join(p.DataDigest, ",")}, {"InitialR2T", yesNo(p.InitialR2T)},
		{"MaxOutstandingR2T", p.MaxOutstandingR2T}, {"ImmediateData", yesNo(p.ImmediateData == nil || *p.ImmediateData)},
		{"FirstBurstLength", p.FirstBurstLength}, {"MaxBurstLength", p.MaxBurstLength}, {"DataPDUInOrder", "Yes"}, {"DataSequenceInOrder", "Yes"},
		{"ErrorRecoveryLevel", 0}, {"IFMarker", "No"}, {"OFMarker", "No"}, {"DefaultTime2Wait", *p.DefaultTime2Wait}, {"DefaultTime2Retain", *p.DefaultTime2Retain},
		{"OFMarkInt", "Reject"}, {"IFMarkInt", "Reject"}, {"MaxConnections", p.MaxConnections}, {"RDMAExtensions", "No"},
		{"TargetRecvDataSegmentLength", p.MaxRecvDataSegmentLength}, {"InitiatorRecvDataSegmentLength", most}, {"MaxOutstandingUnexpectedPDUs", 0},
		{"MaxXmitDataSegmentLength", most}, {"MaxQueueCmd", p.QueueDepth},
	} {
		list = append(list, overlay.Param{Name: line.name, Value: fmt.Sprint(line.value)})
	}
	return list
}

// endSession closes a session's connection: with it goes the session.
func (c *tgtCommand) endSession(ctx context.Context, d *control.Client, st *control.Status) error {
	t, err := c.shown(st)
	if err != nil {
		return err
	}
	s := c.session(st, t)
	if s == nil {
		return overlay.ErrNoSession
	}
	if !slices.ContainsFunc(s.Connections, func(conn target.ConnectionStatus) bool { return uint64(conn.CID) == c.cid }) {
		return overlay.ErrNoConnection
	}
	_, err = d.EndSession(ctx, s.TSIH, 0)
	if err != nil && control.TgtWords(err) == "" {
		err = errors.Join(overlay.ErrInvalidRequest, err)
	}
	return err
}

// session is the session that --sid names, of a target unless that is nil.
func (c *tgtCommand) session(st *control.Status, t *target.TargetStatus) *target.SessionStatus {
	for i := range st.Sessions {
		s := &st.Sessions[i]
		if uint64(s.TSIH) == c.sid && s.Target != "" && (t == nil || s.Target == t.Name) {
			return s
		}
	}
	return nil
}
