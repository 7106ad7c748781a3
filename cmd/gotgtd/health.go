// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gotgtd/gotgtd/target/control"
)

// statusCommand is for health checks: its exit status says whether the daemon answers.
func statusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Say in one line whether the daemon serves",
		Long: `Status says in one line what the daemon serves, and exits with 1 and the reason if no daemon
answers: a health check. A logical unit whose backing store could not be opened is counted as not ready;
with --ready that is a failure as well.`,
		Args: cobra.NoArgs,
	}
	ready := c.Flags().Bool("ready", false, "fail if a logical unit is not ready, too")
	c.RunE = func(c *cobra.Command, _ []string) error {
		st, err := client(c).Status(c.Context())
		if err != nil {
			return err
		}
		line, notReady := summary(st)
		if *ready && notReady > 0 {
			return fmt.Errorf("%s: gotgtd show has the reasons", line)
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), line)
		return err
	}
	return c
}

// summary is what the daemon serves, in one line, and how many logical units of it are not ready.
func summary(st *control.Status) (line string, notReady int) {
	units := 0
	for _, t := range st.Targets {
		for i := range t.LUNs {
			if t.LUNs[i].Type != "disk" {
				continue
			}
			units++
			if t.LUNs[i].Error != "" {
				notReady++
			}
		}
	}
	return fmt.Sprintf("serving: version %s, generation %d, targets %d, logical units %d (%d not ready), sessions %d",
		st.Version, st.Generation, len(st.Targets), units, notReady, len(st.Sessions)), notReady
}
