// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

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
	f := r.flags()
	f.SetOutput(errs)
	err := f.Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return 0
	case err != nil || len(args) == 0:
		fmt.Fprintf(out, "Usage:\ntgt-admin [OPTION]...\n\n%s", f.FlagUsages())
		return 0 // as tgt-admin does
	}
	if slices.Contains([]string{r.remove, r.offline, r.ready, r.update}, "help") {
		fmt.Fprintf(out, "NAME is a target's name; tid=N its number; ALL is all targets.\n\n%s", f.FlagUsages())
		return 0
	}
	err = r.run()
	var says *tgtUsage
	switch {
	case err == nil:
		return 0
	case errors.As(err, &says):
		fmt.Fprintln(out, says.text)
		return says.code
	}
	return tgtStatus(err, errs)
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
		writeTargets(&b, st, tgtSize)
		_, err := io.WriteString(r.out, b.String())
		return err
	case r.execute, r.update != "" && r.remove == "":
		return r.configure(st)
	case r.remove != "":
		return r.deleteAll()
	case r.dump:
		writeTgtConfig(r.out, st.Targets)
		return nil
	case r.offline != "" && r.ready != "":
		return &tgtUsage{"Invalid value (you can't use both ready and offline)!", 1}
	case r.offline != "":
		return r.setState(r.offline, "offline")
	case r.ready != "":
		return r.setState(r.ready, "ready")
	}
	return nil
}

// flags are tgt-admin's options.
func (r *tgtAdminRun) flags() *pflag.FlagSet {
	f := pflag.NewFlagSet("tgt-admin", pflag.ContinueOnError)
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
	return f
}

// load reads the configuration file.
func (r *tgtAdminRun) load() error {
	if _, err := os.Stat(r.file); errors.Is(err, fs.ErrNotExist) {
		return &tgtUsage{fmt.Sprintf("Config file %s not found. Exiting...", r.file), int(unix.ENOENT)}
	}
	r.comment("Using %s as configuration file", r.file)
	var err error
	if r.conf, err = config.LoadToServe(r.file, nil); err != nil {
		return fmt.Errorf("%w: %w", overlay.ErrInvalidRequest, err)
	}
	return nil
}

// comment prints what tgt-admin prints beside its commands.
func (r *tgtAdminRun) comment(format string, args ...any) {
	if r.pretend || r.verbose {
		fmt.Fprintf(r.out, "# "+format+"\n", args...)
	}
}

// bear is an error that ends the run, nil if it goes on after errors.
func (r *tgtAdminRun) bear(err error) error {
	if err != nil && r.ignoreErrors {
		tgtStatus(err, r.errs)
		return nil
	}
	return err
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

// named returns the running targets that an argument means: by name, by tid=N, or ALL.
func (r *tgtAdminRun) named(which string) []*target.TargetStatus {
	var list []*target.TargetStatus
	for i := range r.targets {
		if t := &r.targets[i]; which == "ALL" || which == t.Name || which == "tid="+strconv.Itoa(t.TID) {
			list = append(list, t)
		}
	}
	return list
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

// deleteAll deletes the targets that --delete names.
func (r *tgtAdminRun) deleteAll() error {
	list := r.named(r.remove)
	if len(list) == 0 && r.remove != "ALL" {
		r.comment("Target %s does not exist!", r.remove)
	}
	for _, t := range list {
		if _, err := r.delete(t, "deleted"); r.bear(err) != nil {
			return err
		}
	}
	return nil
}

// delete deletes a target, unless it is in use and that is not forced. It reports
// whether the target is gone.
func (r *tgtAdminRun) delete(t *target.TargetStatus, what string) (bool, error) {
	if len(t.SessionTSIH) > 0 && !r.force {
		r.comment("Target with tid %d (%s) is in use, it won't be %s.", t.TID, t.Name, what)
		return false, nil
	}
	r.comment("Removing target: %s", t.Name)
	err := r.change(overlay.Operation{Mode: "target", Op: "delete", TID: t.TID, Force: r.force})
	return err == nil, err
}

// setState takes targets offline, or makes them ready.
func (r *tgtAdminRun) setState(which, state string) error {
	list := r.named(which)
	tid, isTID := strings.CutPrefix(which, "tid=")
	switch {
	case len(list) == 0 && isTID:
		n, _ := strconv.Atoi(tid) // 0 is no target either
		list = []*target.TargetStatus{{TID: n}}
	case len(list) == 0 && which != "ALL":
		return &tgtUsage{fmt.Sprintf("There is no target with name %q, can't %s it!", which, state), 1}
	}
	for _, t := range list {
		op := overlay.Operation{Mode: "target", Op: "update", TID: t.TID, Params: []overlay.Param{{Name: "state", Value: state}}}
		if err := r.bear(r.change(op)); err != nil {
			return err
		}
	}
	return nil
}

// configure makes what runs as the file has it: with --execute what is missing, taking
// away what the file does not have, with --update what the argument names.
func (r *tgtAdminRun) configure(st *control.Status) error {
	if err := r.load(); err != nil {
		return err
	}
	if err := r.updatable(); err != nil {
		return err
	}
	if err := r.bear(r.change(discoveryOperations(&r.conf.Discovery, st)...)); err != nil {
		return err
	}
	for i := range r.conf.Targets {
		t := &r.conf.Targets[i]
		was := r.status(t.Name)
		switch {
		case r.execute && was != nil:
			r.comment("Target %s already exists!", t.Name)
			continue
		case !r.execute && !r.updates(t.Name, was):
			continue
		}
		if err := r.bear(r.make(t, was, r.conf.GivesTID(i))); err != nil {
			return err
		}
	}
	return r.removeOthers()
}

// updates tells whether --update means a target, which was there if was is not nil.
func (r *tgtAdminRun) updates(name string, was *target.TargetStatus) bool {
	return r.update == "ALL" || r.update == name || was != nil && r.update == "tid="+strconv.Itoa(was.TID)
}

// updatable refuses to update what neither runs nor is in the file.
func (r *tgtAdminRun) updatable() error {
	if r.execute || r.update == "ALL" || len(r.named(r.update)) > 0 {
		return nil
	}
	if tid, ok := strings.CutPrefix(r.update, "tid="); ok {
		return &tgtUsage{fmt.Sprintf("There is no target with tid %s, can't continue!", tid), 1}
	}
	if len(r.conf.Targets) == 0 || r.configured(r.update) {
		return nil
	}
	return &tgtUsage{fmt.Sprintf("Target %s is currently not configured\nand does not exist in the config file - can't continue!", r.update), 1}
}

// configured tells whether the file has a target.
func (r *tgtAdminRun) configured(name string) bool {
	return slices.ContainsFunc(r.conf.Targets, func(t config.Target) bool { return t.Name == name })
}

// removeOthers deletes what runs and is not in the file. As in tgt-admin, --execute with a
// file that has no targets at all deletes nothing.
func (r *tgtAdminRun) removeOthers() error {
	what := "updated"
	if r.execute {
		what = "deleted"
	}
	for i := range r.targets {
		t := &r.targets[i]
		if r.configured(t.Name) || r.execute && len(r.conf.Targets) == 0 || !r.execute && !r.updates(t.Name, t) {
			continue
		}
		if _, err := r.delete(t, what); r.bear(err) != nil {
			return err
		}
	}
	return nil
}

func (r *tgtAdminRun) status(name string) *target.TargetStatus {
	for i := range r.targets {
		if r.targets[i].Name == name {
			return &r.targets[i]
		}
	}
	return nil
}

// make makes a target anew, with the number that the file gives it, or that it had, or
// the highest plus one. One with sessions stays as it is, unless forced.
func (r *tgtAdminRun) make(t *config.Target, was *target.TargetStatus, numbered bool) error {
	if was != nil {
		if gone, err := r.delete(was, "updated"); !gone {
			return err
		}
	}
	st, err := r.daemon.Status(r.ctx)
	if err != nil {
		return err
	}
	tid := 1
	switch {
	case numbered:
		tid = t.TID
	case was != nil:
		tid = was.TID
	default:
		tid = freeTID(st.Targets)
	}
	r.comment("Adding target: %s", t.Name)
	return r.change(targetOperations(t, tid, st.Accounts)...)
}

// freeTID is the number of a new target: the highest plus one, as tgt-admin has it, or else the lowest
// that is free.
func freeTID(targets []target.TargetStatus) int {
	taken, next := map[int]bool{}, 1
	for i := range targets {
		taken[targets[i].TID], next = true, max(next, targets[i].TID+1)
	}
	if next > config.MaxTID {
		for next = 1; taken[next]; next++ {
		}
	}
	return next
}

// targetOperations are those that make a target with a number; accounts are those
// that there are.
func targetOperations(t *config.Target, tid int, accounts []string) []overlay.Operation {
	ops := []overlay.Operation{{Mode: "target", Op: "new", TID: tid, Target: t.Name}}
	if t.Offline {
		ops = append(ops, overlay.Operation{Mode: "target", Op: "update", TID: tid, Params: []overlay.Param{{Name: "state", Value: "offline"}}})
	}
	if params := givenParams(&t.Parameters); len(params) > 0 {
		ops = append(ops, overlay.Operation{Mode: "target", Op: "update", TID: tid, Params: params})
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

// givenParams are those parameters of sessions that are not as they are unless somebody gives them.
func givenParams(p *config.Parameters) []overlay.Param {
	var usual config.Parameters
	usual.SetDefaults()
	usual.FirstBurstLength = min(usual.FirstBurstLength, p.MaxBurstLength)
	defaults := targetParams(&usual)
	var list []overlay.Param
	for i, param := range targetParams(p) {
		switch {
		case param == defaults[i], param.Name == "nop_count" && p.NOPInterval <= 0:
		case param.Name == "TargetRecvDataSegmentLength", param.Name == "InitiatorRecvDataSegmentLength": // other names of the same
		default:
			list = append(list, param)
		}
	}
	return list
}

// lunParams describes a logical unit of a file by which the target has the number
// tid: what follows from that number alone is left to the number that it gets.
func lunParams(l *config.LUN, tid int) []overlay.Param {
	usual := config.LUN{Number: l.Number}
	usual.SetTgtDefaults(tid)
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
	add("bsopts", "format="+l.Format, l.Format != "")
	add("bsopts", fmt.Sprintf("size=%d,create=%v,preallocate=%v", l.Size, l.Create, l.Preallocate), l.Size > 0)
	if l.PhysicalBlockExponent != nil {
		add("lbppbe", strconv.Itoa(*l.PhysicalBlockExponent), true)
	}
	if l.RotationRate != nil {
		add("rotation_rate", strconv.Itoa(*l.RotationRate), *l.RotationRate != 0)
	}
	add("la_lba", strconv.Itoa(int(l.LowestAlignedLBA)), l.LowestAlignedLBA != 0)
	add("optimal_xfer_gran", strconv.Itoa(int(l.OptimalTransferGranularity)), l.OptimalTransferGranularity != 0)
	add("optimal_xfer_len", strconv.FormatUint(uint64(l.OptimalTransferLength), 10), l.OptimalTransferLength != 0)
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
