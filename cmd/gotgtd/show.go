// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/handoff"
)

// jsonFlag gives a command the flag --json.
func jsonFlag(c *cobra.Command) *bool {
	return c.Flags().Bool("json", false, "print JSON")
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func showCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "show",
		Short: "Show targets, logical units, sessions and access lists of the running daemon",
		Long:  "Show prints what `tgtadm --mode target --op show` prints, and the last upgrades. With --json it has all there is.",
		Args:  cobra.NoArgs,
	}
	asJSON := jsonFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		st, err := client(c).Status(c.Context())
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), st)
		}
		var b strings.Builder
		for i := range st.Targets {
			writeTarget(&b, &st.Targets[i], st.Sessions)
		}
		writeUpgrades(&b, st.Upgrades)
		_, err = io.WriteString(c.OutOrStdout(), b.String())
		return err
	}
	return c
}

// writeTarget prints a target in tgtadm's layout.
func writeTarget(b *strings.Builder, t *target.TargetStatus, sessions []target.SessionStatus) {
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
		writeLUN(b, &t.LUNs[i])
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
	fmt.Fprintf(b, "        I_T nexus: %d\n            Initiator: %s alias: %s\n", s.TSIH, s.Initiator, orNone(s.Alias))
	for _, c := range s.Connections {
		fmt.Fprintf(b, "            Connection: %d\n                IP Address: %s\n", c.CID, c.Remote.Addr())
	}
}

func writeLUN(b *strings.Builder, l *target.LUNStatus) {
	kind, size, block := l.Type, l.Size, l.BlockSize
	if kind == "controller" {
		size, block = 0, 1
	}
	fmt.Fprintf(b, "        LUN: %d\n", l.LUN)
	for _, f := range []struct {
		name  string
		value any
	}{
		{"Type", kind}, {"SCSI ID", l.SCSIID}, {"SCSI SN", l.Serial},
		{"Size", fmt.Sprintf("%d MB, Block size: %d", size/1000/1000, block)},
		{"Online", yesNo(l.Online)}, {"Removable media", yesNo(l.Removable)},
		{"Prevent removal", yesNo(l.PreventRemoval)}, {"Readonly", yesNo(l.ReadOnly)},
		{"Backing store type", l.StoreType}, {"Backing store path", orNone(l.StorePath)},
	} {
		fmt.Fprintf(b, "            %s: %v\n", f.name, f.value)
	}
	b.WriteString("            Backing store flags: \n")
}

func yesNo(v bool) string {
	if v {
		return "Yes"
	}
	return "No"
}

// orNone is how tgtadm prints what there is not.
func orNone(s string) string {
	if s == "" {
		return "None"
	}
	return s
}

// writeUpgrades prints the history of upgrades, if there is one.
func writeUpgrades(b *strings.Builder, list []handoff.Report) {
	if len(list) == 0 {
		return
	}
	b.WriteString("Upgrades:\n")
	for i := range list {
		fmt.Fprintf(b, "    %s %s\n", list[i].Time.Format(time.RFC3339), describe(&list[i]))
	}
}

// describe puts a report into a line.
func describe(r *handoff.Report) string {
	if r.Error != "" {
		return "failed: " + r.Error
	}
	return fmt.Sprintf("generation %d: PID %d (%s) to PID %d (%s), %d sessions, %d connections, %d tasks, %d bytes, pause %v",
		r.Generation, r.OldPID, r.OldVersion, r.NewPID, r.NewVersion, r.Sessions, r.Connections, r.Tasks, r.Bytes, r.Pause.Round(time.Microsecond))
}

func sessionsCommand() *cobra.Command {
	c := &cobra.Command{Use: "sessions", Short: "List the sessions of the running daemon", Args: cobra.NoArgs}
	asJSON := jsonFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		st, err := client(c).Status(c.Context())
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), st.Sessions)
		}
		return writeSessions(c.OutOrStdout(), st.Sessions, time.Now())
	}
	return c
}

func writeSessions(w io.Writer, list []target.SessionStatus, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TSIH\tINITIATOR\tADDRESS\tTARGET\tISID\tCIDS\tAGE\tREADS\tWRITES\tREAD\tWRITTEN\tERRORS")
	for i := range list {
		s := &list[i]
		var cids, addrs []string
		for _, c := range s.Connections {
			cids = append(cids, fmt.Sprint(c.CID))
			addrs = append(addrs, c.Remote.String())
		}
		name := s.Target
		if name == "" {
			name = "(discovery)"
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%v\t%d\t%d\t%d\t%d\t%d\n", s.TSIH, s.Initiator, strings.Join(addrs, ","), name, s.ISID,
			strings.Join(cids, ","), now.Sub(s.Started).Round(time.Second), s.Counters.Reads, s.Counters.Writes,
			s.Counters.ReadBytes, s.Counters.WrittenBytes, s.Counters.Errors)
	}
	return t.Flush()
}

func upgradeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "upgrade",
		Short: "Replace the running daemon by the binary and configuration as they are now",
		Long:  "Upgrade starts the next generation of the daemon, which takes over every session, and waits for the outcome. It exits with 1 and the reason when the upgrade did not happen; the daemon then serves as before.",
		Args:  cobra.NoArgs,
	}
	asJSON := jsonFlag(c)
	timeout := c.Flags().Duration("timeout", 0, "give up after this `DURATION`; 0 leaves that to the daemon")
	c.RunE = func(c *cobra.Command, _ []string) error {
		r, err := client(c).Upgrade(c.Context(), *timeout)
		if *asJSON && r != nil {
			if err := printJSON(c.OutOrStdout(), r); err != nil {
				return err
			}
		} else if err == nil {
			fmt.Fprintln(c.OutOrStdout(), describe(r))
			for _, p := range r.Phases {
				fmt.Fprintf(c.OutOrStdout(), "    %-10s %v\n", p.Name, p.Duration.Round(time.Microsecond))
			}
		}
		return err
	}
	return c
}

func versionCommand() *cobra.Command {
	c := &cobra.Command{Use: "version", Short: "Print the version of this program", Args: cobra.NoArgs}
	asJSON := jsonFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		v := map[string]any{"version": versionString(), "go": runtime.Version(), "snapshot_schema": handoff.Schema}
		if *asJSON {
			return printJSON(c.OutOrStdout(), v)
		}
		_, err := fmt.Fprintf(c.OutOrStdout(), "gotgtd %s (%s, snapshot schema %d)\n", v["version"], v["go"], handoff.Schema)
		return err
	}
	return c
}
