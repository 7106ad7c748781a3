// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gotgtd/gotgtd/internal/iscsiname"
	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/control"
)

func showCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "show",
		Short: "Show targets, logical units, sessions and access lists of the running daemon",
		Long: "Show prints targets in the layout of `tgtadm --mode target --op show`, after the last upgrades if there were any. Sizes are for people; " +
			"a script takes them from --json, or from tgtadm, which prints megabytes as ever. With --json it has all there is.",
		Args: cobra.NoArgs,
	}
	return viewCommand(c, func(w io.Writer, st *control.Status, s *selection, raw sizes) error {
		var b strings.Builder
		// The upgrades come first, because a script takes what follows a target's access list as part of it.
		if s.all() {
			writeUpgrades(&b, st.Upgrades)
		}
		writeTargets(&b, st, raw.shown)
		_, err := io.WriteString(w, b.String())
		return err
	}, func(st *control.Status) any { return st })
}

// shown is a size as `gotgtd show` has it.
func (raw sizes) shown(n int64) string {
	if raw {
		return raw.format(n) + " bytes"
	}
	return raw.format(n)
}

// tgtSize is a size as tgtadm has it.
func tgtSize(n int64) string { return fmt.Sprintf("%d MB", megabytes(n)) }

// writeTargets prints the targets in the order of their numbers, as tgtd does.
func writeTargets(b *strings.Builder, st *control.Status, size func(int64) string) {
	targets := slices.Clone(st.Targets)
	slices.SortFunc(targets, func(x, y target.TargetStatus) int { return cmp.Compare(x.TID, y.TID) })
	for i := range targets {
		writeTarget(b, &targets[i], st.Sessions, size)
	}
}

// writeTarget prints a target in tgtadm's layout.
func writeTarget(b *strings.Builder, t *target.TargetStatus, sessions []target.SessionStatus, size func(int64) string) {
	fmt.Fprintf(b, "Target %d: %s\n", t.TID, t.Name)
	b.WriteString("    System information:\n        Driver: iscsi\n")
	fmt.Fprintf(b, "        State: %s\n", t.State)
	b.WriteString("    I_T nexus information:\n")
	for i := range sessions {
		if sessions[i].Target == t.Name {
			writeNexus(b, &sessions[i])
		}
	}
	b.WriteString("    LUN information:\n")
	for i := range t.LUNs {
		writeLUN(b, &t.LUNs[i], size)
	}
	b.WriteString("    Account information:\n")
	for _, a := range t.Accounts {
		fmt.Fprintf(b, "        %s\n", a)
	}
	if t.OutAccount != "" {
		fmt.Fprintf(b, "        %s (outgoing)\n", t.OutAccount)
	}
	b.WriteString("    ACL information:\n")
	for _, a := range t.ACL {
		fmt.Fprintf(b, "        %s\n", a)
	}
}

func writeNexus(b *strings.Builder, s *target.SessionStatus) {
	fmt.Fprintf(b, "        I_T nexus: %d\n            Initiator: %s alias: %s\n", s.TSIH, printable(s.Initiator, "none"), printable(s.Alias, "none"))
	for _, c := range s.Connections {
		fmt.Fprintf(b, "            Connection: %d\n                IP Address: %s\n", c.CID, c.Remote.Addr())
	}
}

func writeLUN(b *strings.Builder, l *target.LUNStatus, size func(int64) string) {
	kind, bytes, block := l.Type, l.Size, l.BlockSize
	if kind == "controller" {
		bytes, block = 0, 1
	}
	fmt.Fprintf(b, "        LUN: %d\n", l.LUN)
	for _, f := range []struct {
		name  string
		value any
	}{
		{"Type", kind}, {"SCSI ID", l.SCSIID}, {"SCSI SN", l.Serial},
		{"Size", fmt.Sprintf("%s, Block size: %d", size(bytes), block)},
		{"Online", yesNo(l.Online)}, {"Removable media", yesNo(l.Removable)},
		{"Prevent removal", yesNo(l.PreventRemoval)}, {"Readonly", yesNo(l.ReadOnly)},
		{"SWP", yesNo(l.SWP)}, {"Thin-provisioning", yesNo(l.Thin)},
		{"Backing store type", l.StoreType}, {"Backing store path", printable(l.StorePath, "None")},
		{"Backing store flags", l.StoreFlags},
	} {
		fmt.Fprintf(b, "            %s: %v\n", f.name, f.value)
		if f.name == "Online" && l.Error != "" {
			fmt.Fprintf(b, "            Not ready: %s\n", printable(l.Error, ""))
		}
		if f.name == "Online" && l.Lost != "" {
			fmt.Fprintf(b, "            Reservations lost: %s\n", printable(l.Lost, ""))
		}
	}
}

func yesNo(v bool) string {
	if v {
		return "Yes"
	}
	return "No"
}

// megabytes is a size as tgtadm rounds it.
func megabytes(size int64) int64 { return (size + 500_000) / 1_000_000 }

// printable is what somebody else has said, or none for nothing, fit to be
// printed: it can't pass for a line of its own, nor steer a terminal.
func printable(s, none string) string {
	if s == "" {
		return none
	}
	return iscsiname.Printable(s, maxPrinted)
}

// maxPrinted is the most that is printed of one thing that somebody else has said.
const maxPrinted = 4096
