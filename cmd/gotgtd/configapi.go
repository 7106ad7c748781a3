// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/handoff"
)

// Config implements [control.Daemon].
func (d *daemon) Config(secrets bool) (control.Config, error) {
	text, err := d.conf.Resolved(secrets)
	if err != nil {
		return control.Config{}, err
	}
	c := control.Config{File: d.options.file(), Config: string(text)}
	c.Revision, err = d.revision()
	return c, err
}

// revision is another one as soon as what runs is, or what the configuration
// file says.
func (d *daemon) revision() (string, error) {
	running, err := d.conf.Resolved(false)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%d %d %d\n%s", os.Getpid(), d.process.Generation(), d.server.Started().UnixNano(), running)
	if file := d.options.file(); file != "" {
		text, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		sum.Write(text)
	}
	return hex.EncodeToString(sum.Sum(nil)[:16]), nil
}

// Plan implements [control.Daemon].
func (d *daemon) Plan(p control.Proposal) (control.Planned, error) {
	ch, err := d.propose(p)
	if err != nil {
		return control.Planned{}, err
	}
	defer ch.file.Close()
	ch.dryRun, ch.force = true, true
	return planned(ch.make(context.Background()))
}

// Apply implements [control.Daemon].
func (d *daemon) Apply(ctx context.Context, p control.Proposal) (control.Planned, error) {
	ch, err := d.propose(p)
	if err != nil {
		return control.Planned{}, err
	}
	defer ch.file.Close()
	if now, err := d.revision(); err != nil || now != p.Revision {
		return control.Planned{}, errors.Join(control.ErrRevision, err)
	}
	return planned(ch.make(ctx))
}

// propose locks the configuration file for a change.
func (d *daemon) propose(p control.Proposal) (*change, error) {
	if d.options.file() == "" {
		return nil, control.ErrNoFile
	}
	f, err := openConfig(d.life, d.options.file())
	if err != nil {
		return nil, err
	}
	return &change{
		file: f, text: []byte(p.Config), running: d.Running(), force: p.Force, upgrade: func(ctx context.Context) (*handoff.Report, error) {
			r, err := d.Upgrade(ctx, p.Force)
			return &r, err
		},
	}, nil
}

// planned is an outcome as the API has it.
func planned(o *outcome, err error) (control.Planned, error) {
	var list config.Errors
	if errors.As(err, &list) && o == nil {
		return control.Planned{}, fmt.Errorf("%w:\n%w", control.ErrInvalid, err)
	}
	if o == nil {
		return control.Planned{}, err
	}
	p := control.NewPlanned(o.Plan)
	p.Pending, p.Applied, p.Report = o.Pending, o.Applied, o.Report
	return p, err
}
