// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gotgtd/gotgtd/target/config"
)

// Exit statuses, which scripts can rely on.
const (
	statusFailed = 1 // what was asked for did not happen
	statusUsage  = 2 // the command line is wrong
	statusConfig = 3 // the configuration is wrong
)

// errReported ends a command whose output has said everything.
type errReported struct {
	status int // 0 for statusFailed
}

func (errReported) Error() string { return "failed" }

// errUsage is an error of the command line.
type errUsage struct{ error }

func (e errUsage) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return errUsage{fmt.Errorf(format, args...)} }

// errRun is an error of a command whose command line was accepted.
type errRun struct{ error }

func (e errRun) Unwrap() error { return e.error }

// markErrors makes the errors of c and the commands below it tell whether the
// command ran: cobra's own errors have no type. Those about arguments get the usage line.
func markErrors(c *cobra.Command) {
	for _, sub := range c.Commands() {
		markErrors(sub)
	}
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			err := check(c, args)
			var says errUsage
			if err == nil || errors.As(err, &says) || c.HasSubCommands() {
				return err
			}
			return usagef("%s can't be called with %s: it is %q, see %s --help", c.CommandPath(), arguments(args), c.UseLine(), c.CommandPath())
		}
	}
	if run := c.RunE; run != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			if err := run(c, args); err != nil {
				return errRun{err}
			}
			return nil
		}
	}
}

// arguments names a command's arguments.
func arguments(args []string) string {
	switch len(args) {
	case 0:
		return "no arguments"
	case 1:
		return fmt.Sprintf("the argument %q alone", args[0])
	}
	return fmt.Sprintf("the arguments %q", args)
}

// exitStatus is the exit status for what the root command returned.
func exitStatus(err error) int {
	var (
		reported errReported
		usage    errUsage
		ran      errRun
		setting  *config.SettingError
		list     config.Errors
	)
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &ran) || errors.As(err, &usage) || errors.As(err, &setting):
		return statusUsage
	case errors.As(err, &reported) && reported.status != 0:
		return reported.status
	case errors.As(err, &list):
		return statusConfig
	}
	return statusFailed
}
