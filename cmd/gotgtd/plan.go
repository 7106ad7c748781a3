// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/plan"
)

func planCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "plan",
		Short: "Print what a reload would change, and what initiators would see of it",
		Long: "Plan compares a configuration with what the daemon serves now, and changes nothing. " +
			"A line begins with + for what comes, ~ for what changes and - for what goes. " +
			"It exits with 1 if the daemon would refuse to carry the plan out without --force.",
		Args: cobra.NoArgs,
	}
	asJSON := jsonFlag(c)
	file := c.Flags().String("config", "", "the configuration `FILE`; without it, the one that the daemon was started with")
	c.RunE = func(c *cobra.Command, _ []string) error {
		p, err := makePlan(c.Context(), client(c), *file)
		if err != nil {
			return err
		}
		return printPlan(c.OutOrStdout(), c.ErrOrStderr(), p, *asJSON)
	}
	return c
}

// makePlan compares a configuration file with what a daemon serves.
func makePlan(ctx context.Context, d *control.Client, file string) (*plan.Plan, error) {
	st, err := d.Status(ctx)
	if err != nil {
		return nil, err
	}
	if file == "" {
		file = st.Config
	}
	if file == "" {
		return nil, errors.New("the daemon serves without a configuration file: name one with --config FILE")
	}
	running, err := d.Running(ctx)
	if err != nil {
		return nil, err
	}
	conf, err := config.LoadToPlan(file, running.Numbers(), running.NotOpen)
	if err != nil {
		return nil, err
	}
	return planFor(running, conf)
}

// planFor plans what leads from what runs to a configuration that was just
// loaded: what tgtadm has changed is on top of that, and may not go with it.
func planFor(running *plan.Running, conf *config.Config) (*plan.Plan, error) {
	if running.Overlay != nil {
		running.Overlay.Apply(conf)
		if err := conf.ValidateToPlan(running.NotOpen); err != nil {
			return nil, fmt.Errorf("with what tgtadm has changed: %w", err)
		}
	}
	return plan.Make(running, conf, target.Look), nil
}

// printPlan prints a plan; the error says whether it would be refused.
func printPlan(w, errs io.Writer, p *plan.Plan, asJSON bool) error {
	if asJSON {
		if err := printJSON(w, p); err != nil {
			return err
		}
	} else {
		for _, line := range p.Lines() {
			fmt.Fprintln(w, line)
		}
		if p.Empty() {
			fmt.Fprintln(w, "nothing changes")
		}
	}
	if len(p.Refused()) > 0 {
		fmt.Fprintln(errs, "a reload would be refused for what needs --force; with it, it is carried out")
		return errReported{}
	}
	return nil
}
