// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gotgtd/gotgtd/internal/replace"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/handoff"
	"github.com/gotgtd/gotgtd/target/plan"
)

// change is a new text for a configuration file, and the way of it into the
// daemon: the file is what runs, before and after, whatever happens.
type change struct {
	file    *replace.File
	text    []byte
	running *plan.Running
	force   bool
	dryRun  bool
	backup  bool // keep the old text as FILE.bak
	part    bool // the text is the file's but for a part, which is all that is meant
	upgrade func(context.Context) (*handoff.Report, error)
}

// outcome is what a change did, or would do.
type outcome struct {
	Config  string          `json:"config"` // the file's path
	Plan    *plan.Plan      `json:"plan"`
	Pending []string        `json:"pending,omitempty"` // what the file had in it already that the daemon had not read
	Applied bool            `json:"applied"`
	Report  *handoff.Report `json:"report,omitempty"`

	refused []string // of what is pending, and goes along
}

// plan works out what the text would do, and how much of that the file would
// do as it is.
func (ch *change) plan() (*outcome, error) {
	conf, err := config.LoadText(ch.file.Path, ch.text, ch.running.Numbers(), ch.running.NotOpen)
	if err != nil {
		return nil, err
	}
	o := &outcome{Config: ch.file.Path}
	if o.Plan, err = planFor(ch.running, conf); err != nil {
		return nil, err
	}
	old, err := config.LoadText(ch.file.Path, ch.file.Text, ch.running.Numbers(), ch.running.NotOpen)
	if err == nil {
		var pending *plan.Plan
		if pending, err = planFor(ch.running, old); err == nil {
			o.Pending = pending.Lines()
			o.refused = both(pending.Refused(), o.Plan.Refused())
		}
	}
	return o, nil // a text that was not valid is replaced by one that is
}

// both lists what is in two lists.
func both(a, b []string) []string {
	return slices.DeleteFunc(a, func(s string) bool { return !slices.Contains(b, s) })
}

// make carries the change out. If the daemon refuses it, the file has its old
// text again; if the daemon ends meanwhile, the file keeps the new one, for the daemon's next start. The outcome is there with a plan that is refused, too.
func (ch *change) make(ctx context.Context) (*outcome, error) {
	o, err := ch.plan()
	if err != nil {
		return nil, err
	}
	if err := o.Plan.Check(); err != nil && !ch.force {
		return o, err
	}
	if ch.force && ch.part && len(o.refused) > 0 {
		return o, fmt.Errorf("%s was changed before this and not reloaded, and that would hurt initiators: --force is for this change alone. "+
			"See `gotgtd plan`, and take that back, or carry it out first with `gotgtd upgrade --force`:\n%s", ch.file.Path, strings.Join(o.refused, "\n"))
	}
	same := bytes.Equal(ch.text, ch.file.Text)
	if ch.dryRun || same && o.Plan.Empty() {
		return o, nil
	}
	if !same {
		if err := ch.put(); err != nil {
			return o, err
		}
	}
	if o.Report, err = ch.upgrade(ctx); err == nil {
		o.Applied = true
		return o, nil
	}
	if same {
		return o, err
	}
	if o.Report != nil && o.Report.TakenOver || errors.Is(err, errGone) {
		return o, ch.stays(err)
	}
	if back := ch.file.Restore(); back != nil {
		return o, fmt.Errorf("%w; and %s could not be put back: %w\n%w", err, ch.file.Path, back, ch.stays(nil))
	}
	return o, fmt.Errorf("%w\n%s is as before", err, ch.file.Path)
}

// backupSuffix ends the name of the file that keeps the text of before.
const backupSuffix = ".bak"

// errNewText is a change that has failed, and whose text the file has all the same.
var errNewText = errors.New("it has the new text")

// errGone is a daemon that has ended while it was to carry out a change.
var errGone = errors.New("the daemon has ended meanwhile")

// stays explains that the file has the new text. A file of a disk may have grown for it, and a daemon that starts
// with the old text would refuse that.
func (ch *change) stays(err error) error {
	way := fmt.Errorf("%s: %w. A daemon that starts serves that; `gotgtd upgrade` has one that runs do so, and `gotgtd plan` shows what that changes",
		ch.file.Path, errNewText)
	if err == nil {
		return way
	}
	return fmt.Errorf("%w\n%w", err, way)
}

func (ch *change) put() error {
	if err := ch.file.Writable(); err != nil {
		return err
	}
	if ch.backup {
		if err := ch.file.Keep(backupSuffix); err != nil {
			return fmt.Errorf("can't keep the old text: %w", err)
		}
	}
	if err := ch.file.Put(ch.text); err != nil {
		return fmt.Errorf("can't write %s: %w", ch.file.Path, err)
	}
	return nil
}

// changer is a command that changes the configuration.
type changer struct {
	force, dryRun, asJSON *bool
	backup                bool
	part                  bool
	name                  func(error) error // of the new text: what its errors say
}

// newChanger gives a command the flags of one that changes the configuration.
func newChanger(c *cobra.Command) *changer {
	return &changer{
		force:  c.Flags().Bool("force", false, "do it though it hurts initiators that are logged in: they are told, and may lose data"),
		dryRun: c.Flags().Bool("dry-run", false, "print the plan, and change nothing"),
		asJSON: jsonFlag(c),
	}
}

// edit changes the configuration file as a person would.
func (r *changer) edit(c *cobra.Command, edit func(*config.Editor) error) error {
	r.part = true
	return r.rewrite(c, func(path string, old []byte) ([]byte, error) {
		e, err := config.Edit(path, old)
		if err == nil {
			err = edit(e)
		}
		if err != nil {
			return nil, err
		}
		return e.Bytes(), nil
	})
}

// rewrite gives the daemon's configuration file the text that new makes of the
// old one.
func (r *changer) rewrite(c *cobra.Command, newText func(path string, old []byte) ([]byte, error)) error {
	ch, err := r.begin(c)
	if err != nil {
		return err
	}
	defer ch.file.Close()
	if ch.text, err = newText(ch.file.Path, ch.file.Text); err != nil {
		return ch.elsewhere(err)
	}
	return r.finish(c, ch)
}

// elsewhere explains an error about a target that is served, but does not come from the
// configuration file itself.
func (ch *change) elsewhere(err error) error {
	var missing *config.NoTargetError
	if !errors.As(err, &missing) {
		return err
	}
	served := func(t plan.Target) bool { return strings.EqualFold(t.Name, missing.Name) }
	if !slices.ContainsFunc(ch.running.Targets, served) {
		return fmt.Errorf("there is no target %s in %s: see gotgtd target list", missing.Name, ch.file.Path)
	}
	return fmt.Errorf("target %s is served, but does not stand in %s, which is all that commands change: "+
		"edit the included file that has it and run `gotgtd upgrade`, or use tgtadm if that has made it", missing.Name, ch.file.Path)
}

// configWait is how long a change of the configuration file waits for another one. It takes as
// long as an upgrade does, or as somebody has the file in an editor (`config edit`).
const configWait = time.Minute

// openConfig locks the configuration file.
func openConfig(ctx context.Context, path string) (*replace.File, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, configWait, fmt.Errorf("it was waited for for %v", configWait))
	defer cancel()
	return replace.Open(ctx, path)
}

// begin locks the daemon's configuration file.
func (r *changer) begin(c *cobra.Command) (*change, error) {
	d := client(c)
	st, err := d.Status(c.Context())
	if err != nil {
		return nil, err
	}
	if st.Config == "" {
		return nil, errNoFile
	}
	f, err := openConfig(c.Context(), st.Config)
	if err != nil {
		return nil, fmt.Errorf("can't change the daemon's configuration: %w", err)
	}
	running, err := d.Running(c.Context())
	if err != nil {
		f.Close()
		return nil, err
	}
	return &change{
		file: f, running: running, force: *r.force, dryRun: *r.dryRun, backup: r.backup, part: r.part,
		upgrade: func(ctx context.Context) (*handoff.Report, error) {
			return upgradeFrom(ctx, d, st, *r.force)
		},
	}, nil
}

var errNoFile = errors.New("the daemon serves without a configuration file, so there is nothing to change: " +
	"write what it serves to one with `gotgtd config convert -o FILE.yaml`, and start it with --config FILE.yaml")

// upgradeFrom asks for an upgrade. If the answer is lost, the process that
// answers next tells what has happened: a later generation, or the same one, which goes on. If
// there is none, or one that was started anew, the daemon has ended: the error is [errGone].
func upgradeFrom(ctx context.Context, d *control.Client, before *control.Status, force bool) (*handoff.Report, error) {
	upgrade := d.Upgrade
	if force {
		upgrade = d.ForceUpgrade
	}
	r, err := upgrade(ctx, 0)
	if err == nil || r != nil {
		return r, err
	}
	st, stErr := d.Status(ctx)
	switch {
	case stErr == nil && st.Generation > before.Generation && len(st.Upgrades) > 0:
		return &st.Upgrades[len(st.Upgrades)-1], nil
	case stErr == nil && st.PID == before.PID:
		return nil, err
	}
	return nil, fmt.Errorf("%w: %w", errGone, err)
}

// notEmpty refuses a text without anything in it, as of a program that has failed before
// apply, or of an editor: it would take all targets away.
func notEmpty(text []byte) error {
	if len(bytes.TrimSpace(text)) == 0 {
		return errors.New("the new configuration is empty, nothing was changed: to serve nothing, say so with `targets: []`")
	}
	return nil
}

// finish carries a change out and prints it.
func (r *changer) finish(c *cobra.Command, ch *change) error {
	release := holdSignals(c.ErrOrStderr())
	o, err := ch.make(c.Context())
	release()
	if r.name != nil {
		err = r.name(err)
	}
	if o == nil {
		return err
	}
	if *r.asJSON {
		return errors.Join(printJSON(c.OutOrStdout(), o), err)
	}
	writeOutcome(c.OutOrStdout(), o)
	return err
}

func writeOutcome(w io.Writer, o *outcome) {
	for _, line := range o.Plan.Lines() {
		fmt.Fprintln(w, line)
	}
	if o.Plan.Empty() {
		fmt.Fprintln(w, "nothing changes")
	}
	if len(o.Pending) > 0 {
		fmt.Fprintf(w, "%s was changed before this and not reloaded; of the above, these go along:\n", o.Config)
		for _, line := range o.Pending {
			fmt.Fprintln(w, "   ", line)
		}
	}
	if o.Applied {
		fmt.Fprintln(w, describe(o.Report))
	}
}
