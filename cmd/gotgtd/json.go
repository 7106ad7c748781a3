// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/gotgtd/gotgtd/target/control"
)

// jsonFlag gives a command the flag --json.
func jsonFlag(c *cobra.Command) *bool {
	return c.Flags().Bool("json", false, "print JSON")
}

// listCommand makes c a command that lists something of the daemon's status: as
// a table with a head, columns separated by tabs, or with --json the rows' own values.
func listCommand(c *cobra.Command, head string, list func(st *control.Status, args []string) (values any, rows []string, err error)) *cobra.Command {
	asJSON := jsonFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		st, err := client(c).Status(c.Context())
		if err != nil {
			return err
		}
		values, rows, err := list(st, args)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), values)
		}
		t := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
		for _, row := range append([]string{head}, rows...) {
			fmt.Fprintln(t, row)
		}
		return t.Flush()
	}
	return c
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
