// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gotgtd/gotgtd/internal/logging"
	"github.com/gotgtd/gotgtd/target/control"
)

func logLevelCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "log-level [debug|info|warn|error]", Short: "Print or change how much the running daemon logs",
		Long: "Log-level prints the least level that the running daemon logs, or changes it. The change holds over upgrades, not over a restart.",
		Args: cobra.MaximumNArgs(1), ValidArgs: logging.Levels(),
	}
	asJSON := jsonFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		d := client(c)
		if len(args) == 1 {
			if _, err := logging.ParseLevel(args[0]); err != nil {
				return usagef("the level %w", err)
			}
			return d.SetLogLevel(c.Context(), control.LogLevel{Level: strings.ToLower(args[0])})
		}
		l, err := d.LogLevel(c.Context())
		switch {
		case err != nil:
			return err
		case *asJSON:
			return printJSON(c.OutOrStdout(), l)
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), l.Level)
		return err
	}
	return c
}

// LogLevel implements [control.Daemon].
func (d *daemon) LogLevel() control.LogLevel {
	return control.LogLevel{Level: logging.LevelName(d.level.Level())}
}

// SetLogLevel implements [control.Daemon]. The level counts at once; an upgrade under way is waited for, since its
// successor may not have been told.
func (d *daemon) SetLogLevel(ctx context.Context, l control.LogLevel) error {
	level, err := logging.ParseLevel(l.Level)
	if err != nil {
		return fmt.Errorf("%w: %w", control.ErrLevel, err)
	}
	d.level.Set(level)
	if err := d.takeTurn(ctx); err != nil {
		return err
	}
	defer d.endTurn()
	d.levelAsked = l.Level
	d.log.Info("log level changed by command", "level", l.Level)
	return nil
}

// keepLogLevel sets the level that the predecessor was asked for.
func (d *daemon) keepLogLevel(b *briefing) {
	level, err := logging.ParseLevel(b.LogLevel)
	if err != nil {
		return // none, or one of a later version: the command line's
	}
	d.level.Set(level)
	d.levelAsked = b.LogLevel
}
