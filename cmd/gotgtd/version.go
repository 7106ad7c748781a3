// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/gotgtd/gotgtd/target/handoff"
)

// version is set by the linker.
var version string

func versionCommand() *cobra.Command {
	c := &cobra.Command{Use: "version", Short: "Print the version of this program", Args: cobra.NoArgs}
	asJSON := jsonFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		v := map[string]any{"version": versionString(), "go": runtime.Version(), "snapshot_schema": handoff.Schema}
		if *asJSON {
			return printJSON(c.OutOrStdout(), v)
		}
		_, err := fmt.Fprintf(c.OutOrStdout(), "gotgtd %s (%s, snapshot schema %d)\n", v["version"], v["go"], handoff.Schema)
		return err
	}
	return c
}

// versionString returns what the linker or the module's build says.
func versionString() string {
	if version != "" {
		return version
	}
	if i, ok := debug.ReadBuildInfo(); ok && i.Main.Version != "" {
		return i.Main.Version
	}
	return "unknown"
}
