// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/control"
)

func lunCommand() *cobra.Command {
	c := groupCommand("lun", "Add, change, grow, remove and list logical units")
	c.AddCommand(lunAddCommand(), lunRemoveCommand(), lunResizeCommand(), lunSetCommand(), lunListCommand())
	return c
}

func lunAddCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "add TARGET [PATH] [KEY=VALUE...]", Short: "Add a logical unit to a target",
		Long: "Add adds a logical unit over the file or device PATH to a target in the configuration file and reloads it. With size=SIZE create=true a missing file is made. " +
			"Without --lun it has the lowest free number from 1 on. " + settingsHelp,
		Args: cobra.MinimumNArgs(1),
	}
	r := newChanger(c)
	number := c.Flags().Int("lun", -1, "the LUN, `N`; without it the lowest that is free, from 1")
	c.Flags().Lookup("lun").DefValue = "0" // -1 is nothing to show
	c.RunE = func(c *cobra.Command, args []string) error {
		if c.Flags().Changed("lun") && *number < 0 {
			return fmt.Errorf("--lun %d is no LUN", *number)
		}
		settings := args[1:]
		if len(settings) > 0 && (filepath.IsAbs(settings[0]) || !strings.Contains(settings[0], "=")) {
			path, err := filepath.Abs(settings[0])
			if err != nil {
				return err
			}
			settings = append([]string{"path=" + path}, settings[1:]...)
		}
		return r.edit(c, func(e *config.Editor) error {
			_, err := e.AddLUN(args[0], *number, settings)
			return err
		})
	}
	return c
}

func lunRemoveCommand() *cobra.Command {
	c := &cobra.Command{Use: "remove TARGET LUN", Short: "Remove a logical unit; its file stays", Args: cobra.ExactArgs(2)}
	r := newChanger(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		n, err := parseLUN(args[1])
		if err != nil {
			return err
		}
		return r.edit(c, func(e *config.Editor) error { return e.RemoveLUN(args[0], n) })
	}
	return c
}

func lunResizeCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "resize TARGET LUN [SIZE]", Short: "Grow a logical unit",
		Long: "Resize gives a logical unit a larger size, and its file with it. Without SIZE initiators are told of the size that its file or device has by now.",
		Args: cobra.RangeArgs(2, 3),
	}
	r := newChanger(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		n, err := parseLUN(args[1])
		if err != nil {
			return err
		}
		return r.edit(c, func(e *config.Editor) error {
			if len(args) == 2 {
				return nil
			}
			return e.SetLUN(args[0], n, []string{"size=" + args[2]})
		})
	}
	return c
}

func lunSetCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "set TARGET LUN KEY=VALUE...", Short: "Change settings of a logical unit",
		Long: "Set changes settings of a logical unit; KEY= takes one away. " + settingsHelp, Args: cobra.MinimumNArgs(3),
	}
	r := newChanger(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		n, err := parseLUN(args[1])
		if err != nil {
			return err
		}
		return r.edit(c, func(e *config.Editor) error { return e.SetLUN(args[0], n, args[2:]) })
	}
	return c
}

func parseLUN(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 14) // flat space addressing (SAM-5 4.7.7.3)
	if err != nil {
		return 0, usagef("%q is not a LUN from 0 to 16383", s)
	}
	return uint16(n), nil
}

// listedLUN is a logical unit with its target.
type listedLUN struct {
	Target string `json:"target"`
	target.LUNStatus
}

func lunListCommand() *cobra.Command {
	c := &cobra.Command{Use: "list [TARGET]", Short: "List the logical units that are served", Args: cobra.MaximumNArgs(1)}
	return listCommand(c, "TARGET\tLUN\tSIZE\tBLOCK\tONLINE\tREADONLY\tNAA\tPATH", func(st *control.Status, args []string) (any, []string, error) {
		targets, err := chosen(st, args)
		list, rows := []listedLUN{}, []string(nil)
		for _, t := range targets {
			for _, l := range t.LUNs {
				if l.Type == "controller" {
					continue
				}
				list = append(list, listedLUN{t.Name, l})
				rows = append(rows, fmt.Sprintf("%s\t%d\t%s\t%d\t%v\t%v\t%s\t%s",
					t.Name, l.LUN, config.FormatSize(l.Size), l.BlockSize, l.Online, l.ReadOnly, l.NAA, l.StorePath))
			}
		}
		return list, rows, err
	})
}

// chosen returns the target that the arguments name, or all.
func chosen(st *control.Status, args []string) ([]target.TargetStatus, error) {
	if len(args) == 0 {
		return st.Targets, nil
	}
	for i := range st.Targets {
		if strings.EqualFold(st.Targets[i].Name, args[0]) {
			return st.Targets[i : i+1], nil
		}
	}
	return nil, fmt.Errorf("there is no target %s", args[0])
}
