// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/gotgtd/gotgtd/target"
)

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
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%v\t%d\t%d\t%d\t%d\t%d\n", s.TSIH, printable(s.Initiator, "-"), strings.Join(addrs, ","), name, s.ISID,
			strings.Join(cids, ","), now.Sub(s.Started).Round(time.Second), s.Counters.Reads, s.Counters.Writes,
			s.Counters.ReadBytes, s.Counters.WrittenBytes, s.Counters.Errors)
	}
	return t.Flush()
}
