// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/overlay"
)

// tgtAdminRun is a run of tgt-admin.
type tgtAdminRun struct {
	ctx                                  context.Context
	daemon                               *control.Client
	out, errs                            io.Writer
	execute, show, force, pretend, dump  bool
	verbose, ignoreErrors                bool
	remove, offline, ready, update, file string

	targets []target.TargetStatus
	conf    *config.Config
}

// tgtAdmin is tgt's program tgt-admin, and returns its exit status.
func tgtAdmin(ctx context.Context, args []string, out, errs io.Writer) int {
	r := &tgtAdminRun{ctx: ctx, daemon: control.NewClient(tgtSocket()), out: out, errs: errs}
	f := pflag.NewFlagSet("tgt-admin", pflag.ContinueOnError)
	f.SetOutput(errs)
	f.BoolVarP(&r.execute, "execute", "e", false, "make the targets of the configuration file that are not there")
	f.StringVar(&r.remove, "delete", "", "delete a target: `NAME`, tid=N or ALL")
	f.StringVar(&r.offline, "offline", "", "put a target in offline state: `NAME`, tid=N or ALL")
	f.StringVar(&r.ready, "ready", "", "put a target in ready state: `NAME`, tid=N or ALL")
	f.StringVar(&r.update, "update", "", "make a target as the configuration file has it: `NAME`, tid=N or ALL")
	f.BoolVarP(&r.show, "show", "s", false, "show all the targets")
	f.StringVarP(&r.file, "conf", "c", "/etc/tgt/targets.conf", "configuration `FILE`")
	f.StringVar(&r.file, "config", "/etc/tgt/targets.conf", "the same")
	f.BoolVar(&r.ignoreErrors, "ignore-errors", false, "go on after an error")
	f.BoolVarP(&r.force, "force", "f", false, "also what is in use")
	f.BoolVarP(&r.pretend, "pretend", "p", false, "only print what would be done")
	f.BoolVar(&r.dump, "dump", false, "print a targets.conf of what runs")
	f.BoolVarP(&r.verbose, "verbose", "v", false, "print what is done")
	f.StringP("control-port", "C", "0", "of no effect: see GOTGTD_CONTROL")
	err := f.Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return 0
	case err != nil || len(args) == 0:
		fmt.Fprintf(out, "Usage:\ntgt-admin [OPTION]...\n\n%s", f.FlagUsages())
		return 0 // as tgt-admin does
	}
	if err := r.run(); err != nil {
		return tgtStatus(err, errs)
	}
	return 0
}

func (r *tgtAdminRun) run() error {
	st, err := r.daemon.Status(r.ctx)
	if err != nil {
		return err
	}
	r.targets = st.Targets
	switch {
	case r.show:
		var b strings.Builder
		for i := range st.Targets {
			writeTarget(&b, &st.Targets[i], st.Sessions)
		}
		_, err := io.WriteString(r.out, b.String())
		return err
	case r.dump:
		writeTgtConfig(r.out, st.Targets)
		return nil
	case r.remove != "":
		return r.each(r.remove, func(t *target.TargetStatus) error { return r.delete(t, "deleted") })
	case r.offline != "":
		return r.each(r.offline, func(t *target.TargetStatus) error { return r.state(t, "offline") })
	case r.ready != "":
		return r.each(r.ready, func(t *target.TargetStatus) error { return r.state(t, "ready") })
	case !r.execute && r.update == "":
		return nil
	}
	if r.conf, err = config.Load(r.file); err != nil {
		return fmt.Errorf("%w: %w", overlay.ErrInvalidRequest, err)
	}
	if err := r.change(discoveryOperations(&r.conf.Discovery, st)...); err != nil && !r.ignoreErrors {
		return err
	}
	return r.configure()
}

// discoveryOperations are those that make the accounts of discovery that are not there.
func discoveryOperations(auth *config.Auth, st *control.Status) []overlay.Operation {
	b := newBinder(st.Accounts)
	for i := range auth.Users {
		if a := &auth.Users[i]; !slices.Contains(st.DiscoveryAccounts, a.User) {
			b.bind(0, a, false)
		}
	}
	if auth.Outgoing != nil && st.DiscoveryOutAccount == "" {
		b.bind(0, auth.Outgoing, true)
	}
	return b.ops
}

// binder makes the operations that bind accounts.
type binder struct {
	ops   []overlay.Operation
	known map[string]bool // accounts that there are by then
}

func newBinder(accounts []string) *binder {
	b := &binder{known: map[string]bool{}}
	for _, a := range accounts {
		b.known[a] = true
	}
	return b
}

// bind binds an account to the target with a number, 0 for discovery.
func (b *binder) bind(tid int, a *config.Account, outgoing bool) {
	if !b.known[a.User] {
		b.ops = append(b.ops, overlay.Operation{Mode: "account", Op: "new", User: a.User, Password: string(a.Secret)})
	}
	b.known[a.User] = true
	b.ops = append(b.ops, overlay.Operation{Mode: "account", Op: "bind", TID: tid, User: a.User, Outgoing: outgoing})
}

// each does something with the target, or the targets, that an argument names.
func (r *tgtAdminRun) each(which string, do func(t *target.TargetStatus) error) error {
	found := false
	for i := range r.targets {
		t := &r.targets[i]
		if which != "ALL" && which != t.Name && which != "tid="+strconv.Itoa(t.TID) {
			continue
		}
		found = true
		if err := do(t); err != nil && !r.ignoreErrors {
			return err
		}
	}
	if !found && which != "ALL" {
		fmt.Fprintf(r.out, "# Target with name %s does not exist!\n", which)
	}
	return nil
}

// change carries operations out as one, or prints them.
func (r *tgtAdminRun) change(ops ...overlay.Operation) error {
	if r.pretend || r.verbose {
		for _, op := range ops {
			fmt.Fprintf(r.out, "# %s %s tid %d lun %d %s%s%s\n", op.Op, op.Mode, op.TID, op.LUN, op.Target, op.Address, op.Initiator)
		}
	}
	if r.pretend || len(ops) == 0 {
		return nil
	}
	return r.daemon.Change(r.ctx, ops...)
}

func (r *tgtAdminRun) delete(t *target.TargetStatus, what string) error {
	if len(t.SessionTSIH) > 0 && !r.force {
		fmt.Fprintf(r.out, "# Target with tid %d (%s) is in use, it won't be %s.\n", t.TID, t.Name, what)
		return nil
	}
	return r.change(overlay.Operation{Mode: "target", Op: "delete", TID: t.TID, Force: r.force})
}

func (r *tgtAdminRun) state(t *target.TargetStatus, state string) error {
	return r.change(overlay.Operation{Mode: "target", Op: "update", TID: t.TID, Params: []overlay.Param{{Name: "state", Value: state}}})
}

// configure makes what runs as the file has it: with --execute what is missing, with
// --update what the argument names.
func (r *tgtAdminRun) configure() error {
	for i := range r.conf.Targets {
		t := &r.conf.Targets[i]
		was := r.status(t.Name)
		named := r.update == "ALL" || r.update == t.Name || was != nil && r.update == "tid="+strconv.Itoa(was.TID)
		if r.update != "" && !named || r.update == "" && was != nil {
			continue
		}
		if err := r.make(t, was); err != nil && !r.ignoreErrors {
			return err
		}
	}
	if r.update == "" {
		return nil
	}
	return r.each(r.update, func(t *target.TargetStatus) error {
		for i := range r.conf.Targets {
			if r.conf.Targets[i].Name == t.Name {
				return nil
			}
		}
		return r.delete(t, "updated")
	})
}

func (r *tgtAdminRun) status(name string) *target.TargetStatus {
	for i := range r.targets {
		if r.targets[i].Name == name {
			return &r.targets[i]
		}
	}
	return nil
}

// make makes a target anew. One with sessions stays as it is, unless forced.
func (r *tgtAdminRun) make(t *config.Target, was *target.TargetStatus) error {
	tid := 0
	if was != nil {
		if err := r.delete(was, "updated"); err != nil || len(was.SessionTSIH) > 0 && !r.force {
			return err
		}
		tid = was.TID
	}
	st, err := r.daemon.Status(r.ctx)
	if err != nil {
		return err
	}
	if tid == 0 {
		for _, other := range st.Targets {
			tid = max(tid, other.TID)
		}
		tid++
	}
	return r.change(targetOperations(t, tid, st.Accounts)...)
}

// targetOperations are those that make a target with a number; accounts are those
// that there are.
func targetOperations(t *config.Target, tid int, accounts []string) []overlay.Operation {
	ops := []overlay.Operation{{Mode: "target", Op: "new", TID: tid, Target: t.Name}}
	if t.Offline {
		ops = append(ops, overlay.Operation{Mode: "target", Op: "update", TID: tid, Params: []overlay.Param{{Name: "state", Value: "offline"}}})
	}
	for i := range t.LUNs {
		ops = append(ops, overlay.Operation{Mode: "logicalunit", Op: "new", TID: tid, LUN: t.LUNs[i].Number, Params: lunParams(&t.LUNs[i], t.TID)})
	}
	b := newBinder(accounts)
	for i := range t.Auth.Users {
		b.bind(tid, &t.Auth.Users[i], false)
	}
	if t.Auth.Outgoing != nil {
		b.bind(tid, t.Auth.Outgoing, true)
	}
	ops = append(ops, b.ops...)
	if t.Access.All {
		ops = append(ops, overlay.Operation{Mode: "target", Op: "bind", TID: tid, Address: "ALL"})
	}
	for _, p := range t.Access.Addresses {
		ops = append(ops, overlay.Operation{Mode: "target", Op: "bind", TID: tid, Address: p.String()})
	}
	for _, name := range t.Access.Initiators {
		ops = append(ops, overlay.Operation{Mode: "target", Op: "bind", TID: tid, Initiator: name})
	}
	return ops
}

// lunParams describes a logical unit of a file by which the target has the number
// tid: what follows from that number alone is left to the number that it gets.
func lunParams(l *config.LUN, tid int) []overlay.Param {
	usual := config.LUN{Number: l.Number}
	usual.SetTgtIdentity(tid)
	list := []overlay.Param{{Name: "path", Value: l.Path}, {Name: "block-size", Value: strconv.Itoa(l.BlockSize)}}
	add := func(name, value string, given bool) {
		if given {
			list = append(list, overlay.Param{Name: name, Value: value})
		}
	}
	add("scsi_id", l.SCSIID, l.SCSIID != usual.SCSIID)
	add("scsi_sn", l.Serial, l.Serial != usual.Serial)
	add("vendor_id", l.Vendor, true)
	add("product_id", l.Product, true)
	add("product_rev", l.Revision, true)
	add("readonly", "1", l.ReadOnly)
	add("removable", "1", l.Removable)
	add("online", "0", l.Offline)
	add("sense_format", "1", l.DescriptorSense)
	add("thin_provisioning", "1", l.Thin != nil && *l.Thin)
	add("write-cache", "off", l.WriteCache != nil && !*l.WriteCache && !l.Sync)
	add("bsoflags", "direct", l.Direct)
	add("bsoflags", "sync", l.Sync)
	add("allow-in-use", "1", l.AllowInUse)
	if l.PhysicalBlockExponent != nil {
		add("lbppbe", strconv.Itoa(*l.PhysicalBlockExponent), true)
	}
	return list
}

// writeTgtConfig prints a targets.conf as `tgt-admin --dump` does.
func writeTgtConfig(w io.Writer, targets []target.TargetStatus) {
	if len(targets) > 0 {
		fmt.Fprint(w, "default-driver iscsi\n\n")
	}
	for _, t := range targets {
		fmt.Fprintf(w, "<target %s>\n", t.Name)
		for _, l := range t.LUNs {
			if l.StorePath != "" && l.Type != "controller" {
				fmt.Fprintf(w, "\tbacking-store %s\n", l.StorePath)
			}
		}
		for _, a := range t.Accounts {
			fmt.Fprintf(w, "\tincominguser %s PLEASE_CORRECT_THE_PASSWORD\n", a)
		}
		if t.OutAccount != "" {
			fmt.Fprintf(w, "\toutgoinguser %s PLEASE_CORRECT_THE_PASSWORD\n", t.OutAccount)
		}
		if len(t.ACL) != 1 || t.ACL[0] != "ALL" {
			for _, a := range t.ACL {
				kind := "initiator-name"
				if strings.Trim(a, "0123456789./:abcdef") == "" || a == "ALL" {
					kind = "initiator-address"
				}
				fmt.Fprintf(w, "\t%s %s\n", kind, a)
			}
		}
		fmt.Fprint(w, "</target>\n\n")
	}
}
