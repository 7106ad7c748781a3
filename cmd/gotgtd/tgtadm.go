// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/overlay"
)

// tgtTools are tgt's programs, by the names under which gotgtd is called.
var tgtTools = map[string]func(ctx context.Context, args []string, out, errs io.Writer) int{
	"tgtadm":    tgtadmMain,
	"tgt-admin": tgtAdmin,
}

// tgtVersion is the version of tgt whose tools these follow.
const tgtVersion = "1.0.85"

// tgtOption is an option of tgtadm.
type tgtOption struct {
	name  string
	short byte
	value bool
}

// tgtadmOptions are in tgtadm's own order, in which it lists what an abbreviation may mean.
var tgtadmOptions = []tgtOption{
	{"debug", 'd', false}, {"help", 'h', false}, {"version", 'V', false},
	{"lld", 'L', true}, {"op", 'o', true}, {"mode", 'm', true}, {"tid", 't', true}, {"sid", 's', true},
	{"cid", 'c', true}, {"lun", 'l', true}, {"name", 'n', true}, {"value", 'v', true}, {"backing-store", 'b', true},
	{"bstype", 'E', true}, {"bsopts", 'S', true}, {"bsoflags", 'f', true}, {"blocksize", 'y', true},
	{"targetname", 'T', true}, {"initiator-address", 'I', true}, {"initiator-name", 'Q', true}, {"user", 'u', true},
	{"password", 'p', true}, {"host", 'H', true}, {"force", 'F', false}, {"params", 'P', true}, {"bus", 'B', true},
	{"device-type", 'Y', true}, {"outgoing", 'O', false}, {"control-port", 'C', true},
}

// tgtUsage is a command line that tgtadm does not take.
type tgtUsage struct {
	text string
	code int
}

func (e *tgtUsage) Error() string { return e.text }

// tgtUsagef is an error with tgt's exit status for it, EINVAL.
func tgtUsagef(format string, args ...any) error {
	return &tgtUsage{fmt.Sprintf(format, args...), int(unix.EINVAL)}
}

const tryHelp = "\nTry `tgtadm --help' for more information."

// parseTgtadm reads options as getopt_long does.
func parseTgtadm(args []string) (map[byte]string, error) {
	set := map[byte]string{}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		var err error
		switch {
		case arg == "--":
			args = nil
			continue
		case strings.HasPrefix(arg, "--"):
			args, err = longOption(set, arg[2:], args)
		case strings.HasPrefix(arg, "-") && arg != "-":
			args, err = shortOptions(set, arg[1:], args)
		default:
			return nil, tgtUsagef("tgtadm: unrecognized option '%s'%s", arg, tryHelp)
		}
		if err != nil {
			return nil, err
		}
	}
	return set, nil
}

func longOption(set map[byte]string, arg string, args []string) ([]string, error) {
	name, value, given := strings.Cut(arg, "=")
	var found []tgtOption
	for _, o := range tgtadmOptions {
		if o.name == name {
			found = []tgtOption{o}
			break
		}
		if strings.HasPrefix(o.name, name) {
			found = append(found, o)
		}
	}
	switch {
	case len(found) == 0:
		return nil, tgtUsagef("tgtadm: unrecognized option '--%s'%s", arg, tryHelp)
	case len(found) > 1:
		text := "tgtadm: option '--" + name + "' is ambiguous; possibilities:"
		for _, o := range found {
			text += " '--" + o.name + "'"
		}
		return nil, tgtUsagef("%s%s", text, tryHelp)
	case !found[0].value && given:
		return nil, tgtUsagef("tgtadm: option '--%s' doesn't allow an argument%s", found[0].name, tryHelp)
	case found[0].value && !given:
		if len(args) == 0 {
			return nil, tgtUsagef("tgtadm: option '--%s' requires an argument%s", found[0].name, tryHelp)
		}
		value, args = args[0], args[1:]
	}
	set[found[0].short] = value
	return args, nil
}

// shortOptions reads options that stand together, the last of which may have a value.
func shortOptions(set map[byte]string, arg string, args []string) ([]string, error) {
	for i := range len(arg) {
		at := slices.IndexFunc(tgtadmOptions, func(o tgtOption) bool { return o.short == arg[i] })
		switch {
		case at < 0:
			return nil, tgtUsagef("tgtadm: invalid option -- '%c'%s", arg[i], tryHelp)
		case !tgtadmOptions[at].value:
			set[arg[i]] = ""
		case i+1 < len(arg):
			set[arg[i]] = arg[i+1:]
			return args, nil
		case len(args) > 0:
			set[arg[i]] = args[0]
			return args[1:], nil
		default:
			return nil, tgtUsagef("tgtadm: option requires an argument -- '%c'%s", arg[i], tryHelp)
		}
	}
	return args, nil
}

// tgtCommand is a command line of tgtadm that makes sense.
type tgtCommand struct {
	mode, op      string
	has           map[byte]string
	tid           int
	sid, cid, lun uint64
}

var tgtModes = map[string]string{
	"sys": "system", "system": "system", "target": "target", "tgt": "target", "logicalunit": "logicalunit", "lu": "logicalunit", "portal": "portal", "pt": "portal",
	"session": "session", "sess": "session", "connection": "conn", "conn": "conn", "account": "account", "lld": "lld",
}

// checkTgtadm makes a command of options.
func checkTgtadm(has map[byte]string) (*tgtCommand, error) {
	c := &tgtCommand{has: has}
	if err := c.numbers(); err != nil {
		return nil, err
	}
	if kind, given := has['Y']; given && !slices.Contains([]string{"disk", "tape", "ssc", "cd", "changer", "osd", "pt"}, kind) {
		return nil, tgtUsagef("tgtadm: unknown target type: %s", kind)
	}
	var ok bool
	op, hasOp := has['o']
	if c.op = op; hasOp && !slices.Contains(tgtOps, op) {
		return nil, &tgtUsage{"tgtadm: unknown operation: " + op, 1}
	}
	mode, hasMode := has['m']
	if c.mode, ok = tgtModes[mode]; hasMode && !ok {
		return nil, &tgtUsage{"tgtadm: unknown mode: " + mode, 1}
	}
	switch {
	case !hasOp:
		return nil, tgtUsagef("tgtadm: specify the operation type")
	case !hasMode:
		return nil, tgtUsagef("tgtadm: specify the mode")
	}
	return c, c.check()
}

// numberBits is how wide the numbers of tgtadm's options are.
var numberBits = map[byte]int{'t': 31, 's': 64, 'c': 32, 'l': 64, 'H': 32, 'C': 16}

// numbers reads the values that are numbers.
func (c *tgtCommand) numbers() error {
	for _, o := range "tslcHC" {
		text, given := c.has[byte(o)]
		if !given {
			continue
		}
		n, err := strconv.ParseUint(text, 0, numberBits[byte(o)])
		switch {
		case errors.Is(err, strconv.ErrRange), o == 'C' && n == 0xFFFF:
			return tgtUsagef("-%c argument value '%s' out of range%s", o, text, tryHelp)
		case err != nil:
			return tgtUsagef("-%c argument value '%s' invalid%s", o, text, tryHelp)
		}
		switch o {
		case 't':
			c.tid = int(n)
		case 's':
			c.sid = n
		case 'c':
			c.cid = n
		case 'l':
			c.lun = n
		}
	}
	return nil
}

// anyOption is what may stand with an operation that tgtadm looks at no closer.
const anyOption = "LotmscnlvbESfyTIQupHFPBYOC"

// allowed are the options of each mode and operation, as tgtadm's own tables have them.
var allowed = map[string]string{
	"system delete": anyOption, "system show": anyOption, "system stat": anyOption, "system update": "LmonvC",
	"target new": "LmotTC", "target delete": "LmotCF", "target show": "LmotC", "target stat": "LmotC",
	"target bind": "LmotIQBHC", "target unbind": "LmotIQBHC", "target update": "LmotnvC",
	"logicalunit new": "LmofytlbEYCS", "logicalunit delete": "LmotlC", "logicalunit stat": "LmotlC", "logicalunit update": "LmofytlPC",
	"account new": "LmoupfC", "account delete": "LmouC", "account bind": "LmoutOC", "account unbind": "LmoutOC", "account show": "LmoC",
	"portal new": "LmoPC", "portal delete": "LmoPC", "portal show": "LmoC",
	"lld start": "LmoC", "lld stop": "LmoC", "lld show": "LmoC",
}

// tgtOps are tgtadm's operations, by their numbers.
var tgtOps = []string{"new", "delete", "show", "bind", "unbind", "update", "stat", "start", "stop"}

// check says what the mode and the operation lack, or can't have.
func (c *tgtCommand) check() error {
	if c.mode == "session" || c.mode == "conn" {
		return nil // the daemon says
	}
	if err := c.needsNumbers(); err != nil {
		return err
	}
	what := c.mode + " " + c.op
	list, ok := allowed[what]
	switch {
	case !ok && c.mode == "lld":
		return tgtUsagef("tgtadm: option %d not supported in lld mode", slices.Index(tgtOps, c.op))
	case !ok:
		return tgtUsagef("tgtadm: operation %s not supported in %s mode", c.op, c.mode)
	}
	for _, o := range tgtadmOptions {
		switch _, given := c.has[o.short]; {
		case !given || o.short == 'd' || strings.ContainsRune(list, rune(o.short)):
		case what == "portal show" || what == "logicalunit update":
			return tgtUsagef("tgtadm: option '-%c' not supported in %s mode", o.short, c.mode)
		default:
			return tgtUsagef("tgtadm: %s mode: option '-%c' is not allowed/supported", c.mode, o.short)
		}
	}
	return c.needs()
}

func (c *tgtCommand) given(o byte) bool { _, ok := c.has[o]; return ok }

// needsNumbers says which number of a target or a logical unit is missing.
func (c *tgtCommand) needsNumbers() error {
	must := "cannot"
	if c.mode == "logicalunit" {
		must = "must not"
	}
	switch needsTID := c.mode == "target" && c.op != "show" || c.mode == "logicalunit"; {
	case needsTID && !c.given('t'):
		return tgtUsagef("tgtadm: 'tid' option is necessary")
	case needsTID && c.tid == 0:
		return tgtUsagef("tgtadm: 'tid' %s be 0", must)
	case c.mode == "logicalunit" && !c.given('l'):
		return tgtUsagef("tgtadm: 'lun' option is necessary")
	}
	return nil
}

// needs says what else is missing.
func (c *tgtCommand) needs() error {
	switch {
	case c.mode == "target" && c.op == "new" && !c.given('T'):
		return tgtUsagef("tgtadm: creating new target requires a name, use --targetname")
	case c.mode == "target" && (c.op == "bind" || c.op == "unbind") && !c.given('I') && !c.given('Q') && !c.given('H') && !c.given('B'):
		return tgtUsagef("tgtadm: %s operation requires initiator-address, initiator-nameor bus", c.op)
	case c.op == "update" && (c.mode == "target" || c.mode == "system") && !(c.given('n') && c.given('v')):
		return tgtUsagef("tgtadm: update operation requires 'name' and 'value' options")
	case c.mode == "account" && c.op == "new" && !(c.given('u') && c.given('p')):
		return tgtUsagef("tgtadm: 'user' and 'password' options are required")
	case c.mode == "account" && (c.op == "bind" || c.op == "unbind") && !c.given('u'):
		return tgtUsagef("tgtadm: 'user' option is necessary")
	case c.mode == "portal" && c.op != "show" && !c.given('P'):
		return tgtUsagef("tgtadm: you must specify --param portal=<portal>")
	}
	return nil
}

// change makes the operation that the daemon is asked for.
func (c *tgtCommand) change() overlay.Operation {
	o := overlay.Operation{Mode: c.mode, Op: c.op, TID: c.tid, LUN: uint16(c.lun), Force: c.given('F'), Outgoing: c.given('O')}
	o.Target, o.Address, o.Initiator, o.User, o.Password = strings.ToLower(c.has['T']), c.has['I'], c.has['Q'], c.has['u'], c.has['p']
	switch {
	case c.mode == "target" && c.op == "update":
		o.Params = []overlay.Param{{Name: c.has['n'], Value: c.has['v']}}
	case c.mode == "logicalunit" && c.op == "new":
		for _, p := range []struct {
			short byte
			name  string
		}{{'b', "path"}, {'E', "bs-type"}, {'f', "bsoflags"}, {'y', "block-size"}, {'Y', "device-type"}, {'S', "bsopts"}} {
			if v := c.has[p.short]; v != "" {
				o.Params = append(o.Params, overlay.Param{Name: p.name, Value: v})
			}
		}
	case c.mode == "logicalunit" && c.op == "update":
		o.Params = splitParams(c.has['P'])
	case c.mode == "portal":
		o.Portal, _ = strings.CutPrefix(c.has['P'], "portal=")
	}
	return o
}

// splitParams reads name=value with commas between them.
func splitParams(s string) []overlay.Param {
	var list []overlay.Param
	for p := range strings.SplitSeq(s, ",") {
		if name, value, _ := strings.Cut(p, "="); name != "" {
			list = append(list, overlay.Param{Name: strings.ToLower(strings.TrimSpace(name)), Value: strings.Trim(value, `"`)})
		}
	}
	return list
}

// tgtSocket is the socket of the daemon that tgt's tools are for.
func tgtSocket() string {
	if s := os.Getenv("GOTGTD_CONTROL"); s != "" {
		return s
	}
	return control.DefaultSocket()
}

// tgtadmMain is tgt's program of that name, and returns its exit status.
func tgtadmMain(ctx context.Context, args []string, out, errs io.Writer) int {
	has, err := parseTgtadm(args)
	if err == nil {
		if _, ok := has['V']; ok {
			fmt.Fprintln(out, tgtVersion)
			return 0
		}
		if _, ok := has['h']; ok {
			fmt.Fprintf(out, "Linux SCSI Target administration utility, version %s\n\nUsage: tgtadm [OPTION]\nSee docs/tgt-tools.md of gotgtd, or tgtadm(8).\n", tgtVersion)
			return 0
		}
		var c *tgtCommand
		if c, err = checkTgtadm(has); err == nil {
			return c.run(ctx, control.NewClient(tgtSocket()), out, errs)
		}
	}
	fmt.Fprintln(errs, err)
	if u, ok := err.(*tgtUsage); ok {
		return u.code
	}
	return int(unix.EINVAL)
}

// run carries the command out.
func (c *tgtCommand) run(ctx context.Context, d *control.Client, out, errs io.Writer) int {
	st, err := d.Status(ctx)
	if err == nil {
		err = c.runOn(ctx, d, st, out)
	}
	return tgtStatus(err, errs)
}

// runOn carries the command out on a daemon that has a status.
func (c *tgtCommand) runOn(ctx context.Context, d *control.Client, st *control.Status, out io.Writer) error {
	switch lld, given := c.has['L']; {
	case given && lld != "iscsi":
		return overlay.ErrNoDriver
	case c.op == "show":
		return c.show(ctx, d, st, out)
	case c.op == "stat":
		return c.stat(st, out)
	case c.mode == "system", c.mode == "lld":
		return c.system(st)
	case c.mode == "conn" && c.op == "delete":
		return c.endSession(ctx, d, st)
	case c.mode == "account" && c.given('t') && c.tid == 0:
		return overlay.ErrNoTarget
	case c.lun > 0xFFFF && c.op == "new":
		return fmt.Errorf("%w: LUN %d is more than there can be", overlay.ErrInvalidRequest, c.lun)
	case c.lun > 0xFFFF:
		return overlay.ErrNoLUN
	case c.mode == "target", c.mode == "logicalunit", c.mode == "account", c.mode == "portal":
		return d.Change(ctx, c.change())
	}
	return overlay.ErrInvalidRequest
}

// tgtStatus says what was wrong in tgt's words, and returns the exit status. What is
// known beyond these words follows on a line of its own.
func tgtStatus(err error, errs io.Writer) int {
	if err == nil {
		return 0
	}
	words := control.TgtWords(err)
	if own := overlay.Words(err); words == "" && (own != overlay.ErrInvalidRequest.Error() || errors.Is(err, overlay.ErrInvalidRequest)) {
		words = own
	}
	if words == "" {
		fmt.Fprintf(errs, "tgtadm: failed to send request hdr to tgt daemon, Transport endpoint is not connected\n(%v)\n", err)
		return int(unix.ENOTCONN)
	}
	fmt.Fprintf(errs, "tgtadm: %s\n", words)
	if detail := strings.TrimPrefix(err.Error(), words); detail != "" {
		fmt.Fprintf(errs, "(%s)\n", strings.TrimPrefix(detail, ": "))
	}
	return int(unix.EINVAL)
}
