// SPDX-License-Identifier: Apache-2.0

// Gotgtd is an iSCSI target whose process can be replaced while initiators
// use it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/gotgtd/gotgtd/target/control"
)

func main() {
	if tool := tgtTools[filepath.Base(os.Args[0])]; tool != nil {
		os.Exit(tool(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	if err := root().Execute(); err != nil {
		var quiet errReported
		if !errors.As(err, &quiet) {
			fmt.Fprintln(os.Stderr, "gotgtd:", err)
		}
		os.Exit(exitStatus(err))
	}
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:           "gotgtd",
		Short:         "An iSCSI target that can be upgraded while initiators use it",
		Version:       versionString(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.PersistentFlags().String("control", control.DefaultSocket(), "unix `SOCKET` that the daemon is controlled through")
	c.AddCommand(serveCommand(), checkCommand(), planCommand(), statusCommand(), showCommand(), sessionCommand(), sessionsCommand(), upgradeCommand(), versionCommand())
	c.AddCommand(topCommand(), logLevelCommand(), supportCommand())
	c.AddCommand(targetCommand(), lunCommand(), userCommand(), accessCommand(), configCommand(), applyCommand())
	markErrors(c)
	return c
}

// client returns a client of the daemon that the flags name.
func client(c *cobra.Command) *control.Client {
	socket, err := c.Flags().GetString("control")
	if err != nil {
		panic(err) // the flag is defined above
	}
	return control.NewClient(socket)
}

// completeFlag has shells complete the values of a flag.
func completeFlag(c *cobra.Command, flag string, values ...string) {
	if err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is defined above
	}
}

// groupCommand is a command that has others, and does nothing by itself.
func groupCommand(name, short string) *cobra.Command {
	return &cobra.Command{Use: name, Short: short, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
}
