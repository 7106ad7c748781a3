// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/gotgtd/gotgtd/target/config"
)

func applyCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "apply -f FILE", Short: "Put a configuration in the place of the daemon's, and reload it",
		Long: "Apply checks FILE, - for standard input, and shows what it would change. Then FILE's text is that of the daemon's configuration file, and the daemon serves it. " +
			"The text before is kept as FILE.bak beside it. If the daemon refuses it, nothing has changed.",
		Args: cobra.NoArgs,
	}
	r := newChanger(c)
	r.backup = true
	file := c.Flags().StringP("file", "f", "", "the new configuration, `FILE`, in the format of the daemon's; relative paths in it start from the folder of the latter")
	if err := c.MarkFlagRequired("file"); err != nil {
		panic(err) // the flag is defined above
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		var text []byte
		var err error
		if *file == "-" {
			text, err = io.ReadAll(c.InOrStdin())
		} else {
			text, err = os.ReadFile(*file)
		}
		if err != nil {
			return fmt.Errorf("can't read the new configuration: %w", err)
		}
		if err := notEmpty(text); err != nil {
			return err
		}
		name := *file
		if name == "-" {
			name = "standard input"
		}
		return r.rewrite(c, func(path string, _ []byte) ([]byte, error) {
			r.name = func(err error) error { return config.Renamed(err, path, name) }
			return text, nil
		})
	}
	return c
}
