// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/control"
)

// sessionsCommand is `session list` as it was called first.
func sessionsCommand() *cobra.Command {
	return listSessions(&cobra.Command{Use: "sessions", Short: "List the sessions of the running daemon", Args: cobra.NoArgs})
}

func sessionCommand() *cobra.Command {
	c := groupCommand("session", "List and end sessions of the running daemon")
	c.AddCommand(
		listSessions(&cobra.Command{Use: "list", Short: "List the sessions", Args: cobra.NoArgs}),
		endSessionCommand(),
	)
	return c
}

func endSessionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "end TSIH",
		Short: "Ask the initiator of a session to log out, and end it if it does not",
		Long: `End asks the initiator of a session to log out, ends the session if it has not
after five seconds, and says what has happened. Most initiators log in again at
once. With --reject-for the target is not available to that initiator, by its name,
for so long; it keeps trying meanwhile. TSIH is the number in "gotgtd session list".`,
		Args: cobra.ExactArgs(1),
	}
	rejectFor := c.Flags().Duration("reject-for", 0, "refuse the initiator's logins to the target for this `TIME`, such as 60s")
	asJSON := jsonFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		tsih, err := strconv.ParseUint(args[0], 10, 16)
		switch {
		case err != nil:
			return usagef("%q is not a TSIH, a number from 0 to 65535: see gotgtd session list", args[0])
		case c.Flags().Changed("reject-for") && (*rejectFor <= 0 || *rejectFor > target.MaxReject):
			return usagef("--reject-for %v: must be a time up to %v", *rejectFor, target.MaxReject)
		}
		end, err := client(c).EndSession(c.Context(), uint16(tsih), *rejectFor)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), end)
		}
		return writeEnd(c.OutOrStdout(), end)
	}
	return c
}

// writeEnd says how a session has ended.
func writeEnd(w io.Writer, e *target.SessionEnd) error {
	how := "has logged out"
	if !e.LoggedOut {
		how = "was ended: " + e.Reason
	}
	what := e.Target
	if what == "" {
		what = "discovery"
	}
	if _, err := fmt.Fprintf(w, "session %d of %s (%s) %s\n", e.TSIH, printable(e.Initiator, "-"), what, how); err != nil || e.Rejected == nil {
		return err
	}
	_, err := fmt.Fprintf(w, "its logins to the target are refused until %s\n", e.Rejected.Local().Format(time.DateTime))
	return err
}

// listSessions makes c the command that lists sessions.
func listSessions(c *cobra.Command) *cobra.Command {
	return viewCommand(c, func(w io.Writer, st *control.Status, _ *selection, raw sizes) error {
		if err := writeSessions(w, st.Sessions, time.Now(), raw); err != nil {
			return err
		}
		return writeRejections(w, st.Rejections, time.Now())
	}, func(st *control.Status) any { return st.Sessions })
}

func writeSessions(w io.Writer, list []target.SessionStatus, now time.Time, raw sizes) error {
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
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\t%d\n", s.TSIH, printable(s.Initiator, "-"), strings.Join(addrs, ","), name, s.ISID,
			strings.Join(cids, ","), age(now.Sub(s.Started)), s.Counters.Reads, s.Counters.Writes,
			raw.cell(int64(s.Counters.ReadBytes)), raw.cell(int64(s.Counters.WrittenBytes)), s.Counters.Errors)
	}
	return t.Flush()
}

// writeRejections prints the initiators that may not log in yet, if any.
func writeRejections(w io.Writer, list []target.RejectionStatus, now time.Time) error {
	for _, r := range list {
		if _, err := fmt.Fprintf(w, "rejected for %v: %s, target %s\n", r.Until.Sub(now).Round(time.Second), printable(r.Initiator, "-"), r.Target); err != nil {
			return err
		}
	}
	return nil
}
