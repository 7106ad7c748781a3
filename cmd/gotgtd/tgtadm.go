// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
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
	mode, op  string
	has       map[byte]string
	tid       int
	sid, cid  uint16
	operation overlay.Operation // if it is a change of the overlay
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
	var ok bool
	op, hasOp := has['o']
	if c.op = op; hasOp && !slices.Contains([]string{"new", "delete", "bind", "unbind", "show", "update", "stat", "start", "stop"}, op) {
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

// numbers reads the values that are numbers.
func (c *tgtCommand) numbers() error {
	for _, o := range "tslcC" {
		text, given := c.has[byte(o)]
		if !given {
			continue
		}
		n, err := strconv.ParseUint(text, 0, 31)
		if err != nil {
			return tgtUsagef("-%c argument value '%s' invalid%s", o, text, tryHelp)
		}
		if o != 't' && n > 0xFFFF {
			return tgtUsagef("-%c argument value '%s' out of range%s", o, text, tryHelp)
		}
		switch o {
		case 't':
			c.tid = int(n)
		case 's':
			c.sid = uint16(n)
		case 'c':
			c.cid = uint16(n)
		case 'l':
			c.operation.LUN = uint16(n)
		}
	}
	if _, given := c.has['t']; given && c.tid == 0 && c.op != "show" {
		return tgtUsagef("tgtadm: 'tid' cannot be 0")
	}
	return nil
}

// allowed are the options of each mode and operation, as tgtadm's own tables have them.
var allowed = map[string]string{
	"system": "LmonvCotFdh", "target new": "LmotTC", "target delete": "LmotCF", "target show": "LmotC", "target stat": "LmotC",
	"target bind": "LmotIQBHC", "target unbind": "LmotIQBHC", "target update": "LmotnvC",
	"account": "LmoupftOC", "logicalunit new": "LmofytlbEYCS", "logicalunit delete": "LmotlC", "logicalunit stat": "LmotlC",
	"logicalunit update": "LmofytlPC", "portal": "LmoPC", "conn": "LmotscC", "session": "LmotsC",
}

// check says what the mode and the operation lack, or can't have.
func (c *tgtCommand) check() error {
	list, ok := allowed[c.mode+" "+c.op]
	if !ok {
		list, ok = allowed[c.mode]
	}
	if !ok {
		return tgtUsagef("tgtadm: operation %s not supported in %s mode", c.op, c.mode)
	}
	if err := c.needs(); err != nil {
		return err
	}
	for _, o := range tgtadmOptions {
		if _, given := c.has[o.short]; given && o.short != 'd' && !strings.ContainsRune(list, rune(o.short)) {
			return tgtUsagef("tgtadm: %s mode: option '-%c' is not allowed/supported", c.mode, o.short)
		}
	}
	return nil
}

func (c *tgtCommand) given(o byte) bool { _, ok := c.has[o]; return ok }

func (c *tgtCommand) needs() error {
	needsTID := c.mode == "target" && c.op != "show" && c.op != "stat" || c.mode == "logicalunit" ||
		c.mode == "account" && (c.op == "unbind" || c.op == "bind" && !c.given('O'))
	switch {
	case needsTID && !c.given('t'):
		return tgtUsagef("tgtadm: 'tid' option is necessary")
	case c.mode == "target" && c.op == "new" && !c.given('T'):
		return tgtUsagef("tgtadm: creating new target requires a name, use --targetname")
	case c.mode == "target" && (c.op == "bind" || c.op == "unbind") && !c.given('I') && !c.given('Q'):
		return tgtUsagef("tgtadm: %s operation requires initiator-address, initiator-nameor bus", c.op)
	case c.op == "update" && (c.mode == "target" || c.mode == "system") && !(c.given('n') && c.given('v')):
		return tgtUsagef("tgtadm: update operation requires 'name' and 'value' options")
	case c.mode == "account" && c.op == "new" && !(c.given('u') && c.given('p')):
		return tgtUsagef("tgtadm: 'user' and 'password' options are required")
	case c.mode == "account" && c.op != "show" && !c.given('u'):
		return tgtUsagef("tgtadm: 'user' option is necessary")
	case c.mode == "logicalunit" && !c.given('l') && c.op != "stat":
		return tgtUsagef("tgtadm: 'lun' option is necessary")
	}
	return nil
}

// change makes the operation that the daemon is asked for.
func (c *tgtCommand) change() overlay.Operation {
	o := c.operation
	o.Mode, o.Op, o.TID, o.Force, o.Outgoing = c.mode, c.op, c.tid, c.given('F'), c.given('O')
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
	var err error
	switch {
	case c.op == "show" || c.op == "stat":
		err = c.show(ctx, d, out)
	case c.mode == "conn" && c.op == "delete":
		err = c.endSession(ctx, d)
	case c.mode == "target", c.mode == "logicalunit", c.mode == "account" && (c.tid > 0 || c.op == "new" || c.op == "delete"):
		err = d.Change(ctx, c.change())
	default:
		err = overlay.ErrInvalidRequest
	}
	return tgtStatus(err, errs)
}

// tgtStatus says what was wrong in tgt's words, and returns the exit status. What is
// known beyond these words follows on a line of its own.
func tgtStatus(err error, errs io.Writer) int {
	if err == nil {
		return 0
	}
	words := control.TgtWords(err)
	if words == "" && overlay.Words(err) != overlay.ErrInvalidRequest.Error() || err == overlay.ErrInvalidRequest {
		words = err.Error()
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
