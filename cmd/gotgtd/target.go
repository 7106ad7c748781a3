// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/control"
)

func targetCommand() *cobra.Command {
	c := groupCommand("target", "Add, change, remove and list targets")
	c.AddCommand(targetAddCommand(), targetRemoveCommand(), targetSetCommand(), targetListCommand())
	return c
}

const settingsHelp = "KEY is as in the configuration file, and SECTION.KEY within a section."

func targetAddCommand() *cobra.Command {
	c := &cobra.Command{Use: "add NAME [KEY=VALUE...]", Short: "Add a target", Long: "Add adds a target to the configuration file and reloads it. " + settingsHelp, Args: cobra.MinimumNArgs(1)}
	r := newChanger(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return r.edit(c, func(e *config.Editor) error { return e.AddTarget(args[0], args[1:]) })
	}
	return c
}

func targetRemoveCommand() *cobra.Command {
	c := &cobra.Command{Use: "remove NAME", Short: "Remove a target; its files stay", Args: cobra.ExactArgs(1)}
	r := newChanger(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return r.edit(c, func(e *config.Editor) error { return e.RemoveTarget(args[0]) })
	}
	return c
}

func targetSetCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "set NAME KEY=VALUE...", Short: "Change settings of a target",
		Long: "Set changes settings of a target; KEY= takes one away. " + settingsHelp, Args: cobra.MinimumNArgs(2),
	}
	r := newChanger(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return r.edit(c, func(e *config.Editor) error { return e.SetTarget(args[0], args[1:]) })
	}
	return c
}

func targetListCommand() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List the targets that are served", Args: cobra.NoArgs}
	return listCommand(c, "TID\tNAME\tSTATE\tLUNS\tSESSIONS\tACCOUNTS\tACCESS", func(st *control.Status, _ []string) (any, []string, error) {
		var rows []string
		for i := range st.Targets {
			s := &st.Targets[i]
			disks := 0
			for _, l := range s.LUNs {
				if l.Type != "controller" {
					disks++
				}
			}
			rows = append(rows, fmt.Sprintf("%d\t%s\t%s\t%d\t%d\t%d\t%s", s.TID, s.Name, s.State, disks, len(s.SessionTSIH), len(s.Accounts), strings.Join(s.ACL, ",")))
		}
		return st.Targets, rows, nil
	})
}
