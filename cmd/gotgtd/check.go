// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/storage"
)

func checkCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check --config FILE",
		Short: "Check a configuration and print every error with its place",
		Long: "Check reads a configuration as serve does, and prints everything wrong with it. " +
			"It exits with 3 if there is an error, and with --strict also if there is a warning. " +
			"That another program has a file open for writing is a warning: it may be the target in whose place gotgtd comes.",
		Args: cobra.NoArgs,
	}
	file := c.Flags().String("config", "", "configuration `FILE`: YAML, tgt's targets.conf or gotgt's JSON")
	printYAML := c.Flags().Bool("print-yaml", false, "print the configuration as YAML, without its secrets")
	strict := c.Flags().Bool("strict", false, "warnings count as errors")
	if err := c.MarkFlagRequired("config"); err != nil {
		panic(err) // the flag is defined above
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		conf, err := loadToCheck(*file)
		if err != nil {
			var list config.Errors
			if !errors.As(err, &list) {
				return err
			}
			for _, e := range list {
				fmt.Fprintln(c.ErrOrStderr(), e)
			}
			return errReported{statusConfig}
		}
		for _, w := range conf.Warnings {
			fmt.Fprintln(c.ErrOrStderr(), w, "(warning)")
		}
		if *strict && len(conf.Warnings) > 0 {
			return errReported{statusConfig}
		}
		if !*printYAML {
			return nil
		}
		b, err := conf.YAML(false)
		if err != nil {
			return err
		}
		_, err = c.OutOrStdout().Write(b)
		return err
	}
	return c
}

// loadToCheck reads a configuration as serve does. That other programs have the files open
// now, as the target has whose place gotgtd is to take, is a warning and no error.
func loadToCheck(file string) (*config.Config, error) {
	conf, err := config.Load(file)
	var list config.Errors
	if !errors.As(err, &list) || slices.ContainsFunc(list, func(e *config.Error) bool { return !errors.Is(e, storage.ErrWritten) }) {
		return conf, err
	}
	if conf, err = config.LoadToServe(file, nil); err == nil {
		conf.Warnings = append(list, conf.Warnings...)
	}
	return conf, err
}
