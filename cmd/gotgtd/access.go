// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/control"
)

func accessCommand() *cobra.Command {
	c := groupCommand("access", "Say which initiators may use a target or a logical unit")
	c.AddCommand(
		accessChangeCommand("add", "Admit initiators", (*config.Editor).AddAccess),
		accessChangeCommand("remove", "Admit initiators no more", (*config.Editor).RemoveAccess),
		accessListCommand())
	return c
}

func accessChangeCommand(verb, short string, edit func(e *config.Editor, target string, lun int, entries []string) error) *cobra.Command {
	c := &cobra.Command{
		Use: verb + " TARGET ENTRY...", Short: short,
		Long: short + ". An ENTRY is an IP address, a network, ALL, an initiator's name or a pattern of names, or account:USER. " +
			"The first entry keeps out everybody else; the last can't be removed, since everybody would be admitted.",
		Args: cobra.MinimumNArgs(2),
	}
	r := newChanger(c)
	lun := c.Flags().Int("lun", -1, "of this LUN, `N`, alone")
	c.Flags().Lookup("lun").DefValue = "0" // -1 is nothing to show
	c.RunE = func(c *cobra.Command, args []string) error {
		if c.Flags().Changed("lun") && *lun < 0 {
			return fmt.Errorf("--lun %d is no LUN", *lun)
		}
		return r.edit(c, func(e *config.Editor) error { return edit(e, args[0], *lun, args[1:]) })
	}
	return c
}

// accessList is who may use a target.
type accessList struct {
	Target string   `json:"target"`
	Access []string `json:"access"`
}

func accessListCommand() *cobra.Command {
	c := &cobra.Command{Use: "list [TARGET]", Short: "List who may use the targets", Args: cobra.MaximumNArgs(1)}
	return listCommand(c, "TARGET\tACCESS", func(st *control.Status, args []string) (any, []string, error) {
		targets, err := chosen(st, args)
		list, rows := []accessList{}, []string(nil)
		for _, t := range targets {
			list = append(list, accessList{t.Name, t.ACL})
			for _, entry := range t.ACL {
				rows = append(rows, t.Name+"\t"+entry)
			}
		}
		return list, rows, err
	})
}
