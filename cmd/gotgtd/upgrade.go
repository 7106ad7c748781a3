// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gotgtd/gotgtd/target/handoff"
)

func upgradeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "upgrade",
		Short: "Replace the running daemon by the binary and configuration as they are now",
		Long:  "Upgrade starts the next generation of the daemon, which takes over every session, and waits for the outcome. It exits with 1 and the reason when the upgrade did not happen; the daemon then serves as before.",
		Args:  cobra.NoArgs,
	}
	asJSON := jsonFlag(c)
	force := c.Flags().Bool("force", false, "do it though the new configuration hurts initiators that are logged in: they are told, and may lose data")
	dryRun := c.Flags().Bool("dry-run", false, "print what it would change, as gotgtd plan does, and change nothing")
	timeout := c.Flags().Duration("timeout", 0, "give up after this `DURATION`; 0 leaves that to the daemon")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *timeout < 0 {
			return usagef("--timeout %v is in the past", *timeout)
		}
		if *dryRun {
			p, err := makePlan(c.Context(), client(c), "")
			if err != nil {
				return err
			}
			return printPlan(c.OutOrStdout(), c.ErrOrStderr(), p, *asJSON)
		}
		upgrade := client(c).Upgrade
		if *force {
			upgrade = client(c).ForceUpgrade
		}
		r, err := upgrade(c.Context(), *timeout)
		if *asJSON && r != nil {
			if err := printJSON(c.OutOrStdout(), r); err != nil {
				return err
			}
		} else if err == nil {
			for _, line := range r.Plan {
				fmt.Fprintln(c.OutOrStdout(), line)
			}
			fmt.Fprintln(c.OutOrStdout(), describe(r))
			for _, p := range r.Phases {
				fmt.Fprintf(c.OutOrStdout(), "    %-10s %v\n", p.Name, p.Duration.Round(time.Microsecond))
			}
		}
		return err
	}
	return c
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
		return "failed: " + strings.ReplaceAll(r.Error, "\n", "; ")
	}
	return fmt.Sprintf("generation %d: PID %d (%s) to PID %d (%s), %d sessions, %d connections, %d tasks, %d bytes, pause %v",
		r.Generation, r.OldPID, r.OldVersion, r.NewPID, r.NewVersion, r.Sessions, r.Connections, r.Tasks, r.Bytes, r.Pause.Round(time.Microsecond))
}
