// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/descriptor"
	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/control"
)

// selection is what of the status is wanted. The zero selection is all.
type selection struct {
	target    string // name or pattern, in letters of any case; empty: all
	initiator string // the same
	lun       int    // less than 0: all
}

// flags gives a command the flags of a selection.
func (s *selection) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&s.target, "target", "", "only this target, `NAME`, which may have * and ? in it")
	f.StringVar(&s.initiator, "initiator", "", "only sessions of this initiator, `NAME`, which may have * and ? in it")
	f.IntVar(&s.lun, "lun", -1, "only this logical unit, `N`, of each target")
	f.Lookup("lun").DefValue = "0" // -1 is nothing to show
}

// check says what can't be asked for.
func (s *selection) check(c *cobra.Command) error {
	for flag, pattern := range map[string]string{"target": s.target, "initiator": s.initiator} {
		if _, err := path.Match(pattern, ""); err != nil {
			return usagef("--%s %q is no pattern: a [ has to be closed by a ]", flag, pattern)
		}
	}
	if c.Flags().Changed("lun") {
		_, err := parseLUN(strconv.Itoa(s.lun))
		return err
	}
	s.lun = -1
	return nil
}

// all tells whether nothing is left out.
func (s *selection) all() bool { return s.target == "" && s.initiator == "" && s.lun < 0 }

// matches tells whether a name is wanted. iSCSI names are the same in letters of any case (RFC 7143 4.2.7.2).
func matches(pattern, name string) bool {
	ok, err := path.Match(strings.ToLower(pattern), strings.ToLower(name))
	return pattern == "" || ok && err == nil
}

// apply leaves out of a status what is not wanted. A target that is named and not there is an error, as is a logical
// unit that no target has.
func (s *selection) apply(st *control.Status) error {
	if named := !strings.ContainsAny(s.target, `*?[\`); s.target != "" && named {
		if _, err := chosen(st, []string{s.target}); err != nil {
			return err
		}
	}
	st.Targets = slices.DeleteFunc(st.Targets, func(t target.TargetStatus) bool { return !matches(s.target, t.Name) })
	has, found := map[string]bool{}, s.lun < 0
	for i := range st.Targets {
		t := &st.Targets[i]
		if s.lun >= 0 {
			t.LUNs = slices.DeleteFunc(t.LUNs, func(l target.LUNStatus) bool { return int(l.LUN) != s.lun })
			has[t.Name] = len(t.LUNs) > 0
			found = found || has[t.Name]
		}
	}
	if !found {
		return fmt.Errorf("there is no LUN %d in any target that is asked for: gotgtd show without --lun has all", s.lun)
	}
	st.Sessions = slices.DeleteFunc(st.Sessions, func(i target.SessionStatus) bool {
		return !matches(s.target, i.Target) || !matches(s.initiator, i.Initiator) ||
			s.lun >= 0 && (!has[i.Target] || slices.Contains(i.Masked, uint16(s.lun)))
	})
	st.Rejections = slices.DeleteFunc(st.Rejections, func(r target.RejectionStatus) bool {
		return !matches(s.target, r.Target) || !matches(s.initiator, r.Initiator)
	})
	return nil
}

// sizes is how numbers of bytes are printed.
type sizes bool // true: as numbers

func (raw sizes) format(n int64) string {
	if raw {
		return strconv.FormatInt(n, 10)
	}
	return humanSize(n)
}

// cell is a size in a column of a table, one word.
func (raw sizes) cell(n int64) string {
	if raw {
		return raw.format(n)
	}
	return strings.NewReplacer(" bytes", "B", " ", "").Replace(humanSize(n))
}

// bytesFlag gives a command the flag --bytes.
func bytesFlag(c *cobra.Command) *bool {
	return c.Flags().Bool("bytes", false, "print sizes as numbers of bytes")
}

// defaultWatch is how often --watch prints.
const defaultWatch = 2 * time.Second

// watchFlag gives a command the flag --watch.
func watchFlag(c *cobra.Command) *time.Duration {
	every := c.Flags().Duration("watch", 0, "print again every `TIME`, until it is interrupted")
	c.Flags().Lookup("watch").NoOptDefVal = defaultWatch.String()
	return every
}

// viewCommand makes c a command that prints a selection of the daemon's status, once or again and again.
func viewCommand(c *cobra.Command, print func(w io.Writer, st *control.Status, s *selection, raw sizes) error, values func(st *control.Status) any) *cobra.Command {
	asJSON, raw, every := jsonFlag(c), bytesFlag(c), watchFlag(c)
	var s selection
	s.flags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := s.check(c); err != nil {
			return err
		}
		if c.Flags().Changed("watch") && *every <= 0 {
			return usagef("--watch=%v: must be a positive time", *every)
		}
		once := func(w io.Writer) error {
			st, err := client(c).Status(c.Context())
			if err == nil {
				err = s.apply(st)
			}
			switch {
			case err != nil:
				return err
			case *asJSON:
				return printJSON(w, values(st))
			}
			return print(w, st, &s, sizes(*raw))
		}
		if *every == 0 {
			return once(c.OutOrStdout())
		}
		return watch(c.Context(), c.OutOrStdout(), *every, once)
	}
	return c
}

// clearScreen moves to the beginning of a terminal's screen and empties it.
const clearScreen = "\x1b[H\x1b[J"

// watch prints again and again until ctx ends or printing fails. On a terminal each replaces the one before.
func watch(ctx context.Context, w io.Writer, every time.Duration, print func(io.Writer) error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for first := true; ; first = false {
		var b strings.Builder
		switch {
		case isTerminal(w):
			b.WriteString(clearScreen)
		case !first:
			b.WriteString("\n")
		}
		if err := print(&b); err != nil {
			return err
		}
		if _, err := io.WriteString(w, b.String()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// isTerminal tells whether somebody looks at what is written to w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(descriptor.Number(f), unix.TCGETS)
	return err == nil
}

// age is a time that has passed, for people.
func age(d time.Duration) string {
	switch d = max(d, 0).Round(time.Second); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%02dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}
