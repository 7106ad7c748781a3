// SPDX-License-Identifier: Apache-2.0

// Package overlay is configuration that runs and stands in no file: what tgtadm
// has changed since the daemon was started. It is a list of operations that is
// carried out on each configuration that is loaded.
package overlay

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gotgtd/gotgtd/target/config"
)

// Operation is one change, with the words of tgtadm's options.
type Operation struct {
	Mode   string  `json:"mode"`             // target, logicalunit, account or portal
	Op     string  `json:"op"`               // new, delete, bind, unbind or update
	TID    int     `json:"tid,omitempty"`    // of the target; an account is bound to discovery without it
	Target string  `json:"target,omitempty"` // its name; the daemon fills it in
	LUN    uint16  `json:"lun,omitempty"`
	Params []Param `json:"params,omitempty"` // of a target or logical unit, set in this order

	Address   string `json:"initiator_address,omitempty"` // to bind
	Initiator string `json:"initiator_name,omitempty"`    // the same

	User     string `json:"user,omitempty"`
	Password string `json:"password,omitempty"`
	Outgoing bool   `json:"outgoing,omitempty"`

	Portal string `json:"portal,omitempty"` // IP address and port

	Force bool `json:"force,omitempty"` // delete a target that is in use
}

// Param is a parameter that has the name of a directive of targets.conf.
type Param struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// What can be wrong with an operation, in tgt's words.
var (
	ErrNoDriver       = errors.New("can't find the driver")
	ErrNoTarget       = errors.New("can't find the target")
	ErrNoLUN          = errors.New("can't find the logical unit")
	ErrNoSession      = errors.New("can't find the session")
	ErrNoConnection   = errors.New("can't find the connection")
	ErrNoAccount      = errors.New("can't find the account")
	ErrTargetExists   = errors.New("this target already exists")
	ErrLUNExists      = errors.New("this logical unit number already exists")
	ErrAccountExists  = errors.New("this account already exists")
	ErrRuleExists     = errors.New("this access control rule already exists")
	ErrNoRule         = errors.New("this access control rule does not exist")
	ErrOutgoing       = errors.New("this target already has an outgoing account")
	ErrTargetActive   = errors.New("this target is still active")
	ErrLUNActive      = errors.New("this logical unit is still active")
	ErrInvalidRequest = errors.New("invalid request")
)

// Words returns what tgt says of an error.
func Words(err error) string {
	for _, e := range []error{
		ErrNoDriver, ErrNoTarget, ErrNoLUN, ErrNoSession, ErrNoConnection, ErrNoAccount, ErrTargetExists, ErrLUNExists, ErrAccountExists, ErrRuleExists, ErrNoRule,
		ErrOutgoing, ErrTargetActive, ErrLUNActive,
	} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	return ErrInvalidRequest.Error()
}

// Overlay is a list of operations. nil is one that has none.
type Overlay struct {
	Operations []Operation `json:"operations"`
}

// List returns the operations.
func (o *Overlay) List() []Operation {
	if o == nil {
		return nil
	}
	return o.Operations
}

// Accounts returns the names of the accounts that were made, in their order.
func (o *Overlay) Accounts() []string {
	var names []string
	for _, op := range o.List() {
		if op.is("account", "new") {
			names = append(names, op.User)
		}
	}
	return names
}

// Apply carries the operations out on a configuration. One that no longer fits is
// passed over and is among the errors.
func (o *Overlay) Apply(c *config.Config) []error {
	if o == nil {
		return nil
	}
	var errs []error
	a := &applier{c: c, accounts: map[string]string{}}
	for _, op := range o.Operations {
		if err := a.apply(&op); err != nil {
			errs = append(errs, fmt.Errorf("%s %s of tgtadm: %w", op.Mode, op.Op, err))
		}
	}
	c.SetDefaults()
	return errs
}

// Add returns the overlay with more operations; c is a configuration that has
// had the overlay applied, and has the operations carried out on it. late is of the
// process that runs.
func (o *Overlay) Add(c *config.Config, ops []Operation, late config.Late) (*Overlay, error) {
	next := &Overlay{Operations: slices.Clone(o.List())}
	a := &applier{c: c, accounts: map[string]string{}}
	for _, op := range next.Operations {
		if op.is("account", "new") {
			a.accounts[op.User] = op.Password
		}
	}
	for _, op := range ops {
		if !op.is("target", "new") {
			op.Target = ""
		}
		if t := op.find(c); t != nil {
			op.Target = t.Name
		}
		if err := a.apply(&op); err != nil {
			return nil, err
		}
		next.add(op)
	}
	c.SetDefaults()
	if err := c.ValidateToPlan(late); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidRequest, err)
	}
	return next, nil
}

func (op *Operation) is(mode, what string) bool { return op.Mode == mode && op.Op == what }

// add appends an operation, and drops what it undoes.
func (o *Overlay) add(op Operation) {
	if op.Op != "delete" && op.Op != "unbind" {
		o.Operations = append(o.Operations, op)
		return
	}
	made := "new"
	if op.Op == "unbind" {
		made = "bind"
	}
	last := -1
	for i := range o.Operations {
		if o.Operations[i].is(op.Mode, made) && op.covers(&o.Operations[i]) {
			last = i
		}
	}
	kept := o.Operations[:max(last, 0):max(last, 0)]
	for _, old := range o.Operations[max(last, 0):] {
		if !op.covers(&old) || last < 0 && (old.Op == "delete" || old.Op == "unbind") {
			kept = append(kept, old)
		}
	}
	if last < 0 {
		kept = append(kept, op)
	}
	o.Operations = kept
}

// covers reports whether old is about what op deletes or unbinds.
func (op *Operation) covers(old *Operation) bool {
	switch {
	case op.is("target", "delete"):
		return old.TID == op.TID && old.Mode != "" && (old.Mode != "account" || old.Op != "new" && old.Op != "delete")
	case op.is("logicalunit", "delete"):
		return old.Mode == "logicalunit" && old.TID == op.TID && old.LUN == op.LUN
	case op.is("account", "delete"):
		return old.Mode == "account" && old.User == op.User
	case op.is("portal", "delete"):
		return old.Mode == "portal" && old.Portal == op.Portal
	}
	return old.Mode == op.Mode && old.TID == op.TID && old.Address == op.Address && old.Initiator == op.Initiator &&
		old.User == op.User && old.Outgoing == op.Outgoing && (old.Op == "bind" || old.Op == "unbind")
}

// applier carries operations out.
type applier struct {
	c        *config.Config
	accounts map[string]string // passwords by name
}

// find returns the operation's target. Once that is known its name counts: the
// number of one that was deleted and stands in a file may be another at the next load.
func (op *Operation) find(c *config.Config) *config.Target {
	for i := range c.Targets {
		if t := &c.Targets[i]; op.Target == t.Name || op.Target == "" && t.TID == op.TID {
			return t
		}
	}
	return nil
}

func (a *applier) apply(op *Operation) error {
	switch {
	case op.is("target", "new"):
		return a.newTarget(op)
	case op.is("account", "new"):
		if _, ok := a.accounts[op.User]; ok {
			return ErrAccountExists
		}
		a.accounts[op.User] = op.Password
		return nil
	case op.is("account", "delete"):
		return a.deleteAccount(op)
	case op.Mode == "account" && op.TID == 0:
		return a.account(&a.c.Discovery, op)
	case op.Mode == "portal":
		return portal(a.c, op)
	}
	t := op.find(a.c)
	if t == nil {
		return ErrNoTarget
	}
	switch op.Mode {
	case "target":
		return a.target(t, op)
	case "logicalunit":
		return logicalUnit(t, op)
	case "account":
		return a.account(&t.Auth, op)
	}
	return fmt.Errorf("%w: mode %q", ErrInvalidRequest, op.Mode)
}

func (a *applier) newTarget(op *Operation) error {
	for i := range a.c.Targets {
		if t := &a.c.Targets[i]; t.TID == op.TID || t.Name == op.Target {
			return ErrTargetExists
		}
	}
	a.c.Targets = append(a.c.Targets, config.Target{Name: op.Target, TID: op.TID, Access: config.Access{Nobody: true}})
	return nil
}

func (a *applier) target(t *config.Target, op *Operation) error {
	rule, isName := op.Address, false
	if op.Initiator != "" {
		rule, isName = op.Initiator, true
	}
	switch op.Op {
	case "delete":
		name := t.Name
		a.c.Targets = slices.DeleteFunc(a.c.Targets, func(t config.Target) bool { return t.Name == name })
		return nil
	case "bind":
		fresh, err := t.Access.Bind(rule, isName)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalidRequest, err)
		}
		if !fresh {
			return ErrRuleExists
		}
		return nil
	case "unbind":
		if !t.Access.Unbind(rule, isName) {
			return ErrNoRule
		}
		return nil
	case "update":
		return set(t.SetTgt, op.Params)
	}
	return fmt.Errorf("%w: op %q", ErrInvalidRequest, op.Op)
}

// set sets parameters.
func set(setOne func(name, value string) error, params []Param) error {
	for _, p := range params {
		if err := setOne(p.Name, p.Value); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalidRequest, err)
		}
	}
	return nil
}

func logicalUnit(t *config.Target, op *Operation) error {
	at := slices.IndexFunc(t.LUNs, func(l config.LUN) bool { return l.Number == op.LUN })
	switch {
	case op.Op == "new" && at >= 0:
		return ErrLUNExists
	case op.Op == "new":
		l := config.LUN{Number: op.LUN}
		if err := set(l.SetTgt, op.Params); err != nil {
			return err
		}
		l.SetTgtDefaults(t.TID)
		t.LUNs = append(t.LUNs, l)
		return nil
	case at < 0 && op.LUN == 0: // the controller
		return fmt.Errorf("%w: LUN 0 is the target's controller", ErrInvalidRequest)
	case at < 0:
		return ErrNoLUN
	case op.Op == "delete":
		t.LUNs = slices.Delete(slices.Clone(t.LUNs), at, at+1)
		return nil
	case op.Op == "update":
		return set(t.LUNs[at].SetTgt, op.Params)
	}
	return fmt.Errorf("%w: op %q", ErrInvalidRequest, op.Op)
}

// account binds an account to a target or to discovery, or takes that back.
func (a *applier) account(auth *config.Auth, op *Operation) error {
	isUser := func(u config.Account) bool { return u.User == op.User }
	switch password, known := a.accounts[op.User]; {
	case op.Op == "bind" && !known:
		return ErrNoAccount
	case op.Op == "bind" && op.Outgoing:
		if auth.Outgoing != nil {
			return ErrOutgoing
		}
		auth.Outgoing = &config.Account{User: op.User, Secret: config.Secret(password)}
	case op.Op == "bind":
		if slices.ContainsFunc(auth.Users, isUser) {
			return ErrAccountExists
		}
		auth.Users = append(slices.Clip(auth.Users), config.Account{User: op.User, Secret: config.Secret(password)})
	case op.Op == "unbind" && op.Outgoing:
		if auth.Outgoing == nil || auth.Outgoing.User != op.User {
			return ErrNoAccount
		}
		auth.Outgoing = nil
	case op.Op == "unbind":
		if !slices.ContainsFunc(auth.Users, isUser) {
			return ErrNoAccount
		}
		auth.Users = slices.DeleteFunc(slices.Clone(auth.Users), isUser)
	default:
		return fmt.Errorf("%w: op %q", ErrInvalidRequest, op.Op)
	}
	return nil
}

// deleteAccount takes the account from its targets and from discovery, too, as tgt does.
func (a *applier) deleteAccount(op *Operation) error {
	if _, ok := a.accounts[op.User]; !ok {
		return ErrNoAccount
	}
	delete(a.accounts, op.User)
	all := []*config.Auth{&a.c.Discovery}
	for i := range a.c.Targets {
		all = append(all, &a.c.Targets[i].Auth)
	}
	for _, auth := range all {
		auth.Users = slices.DeleteFunc(slices.Clone(auth.Users), func(u config.Account) bool { return u.User == op.User })
		if auth.Outgoing != nil && auth.Outgoing.User == op.User {
			auth.Outgoing = nil
		}
	}
	return nil
}

// portal opens or closes a portal. Its address is completed first, so that the
// same one is known whatever way it is written.
func portal(c *config.Config, op *Operation) error {
	address, err := config.ParsePortal(op.Portal)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidRequest, err)
	}
	op.Portal = address
	switch {
	case op.Op == "new" && !c.AddPortal(address):
		return fmt.Errorf("%w: %s is a portal already", ErrInvalidRequest, address)
	case op.Op == "delete" && !c.RemovePortal(address):
		return fmt.Errorf("%w: %s is not among the portals", ErrInvalidRequest, address)
	case op.Op != "new" && op.Op != "delete":
		return fmt.Errorf("%w: op %q", ErrInvalidRequest, op.Op)
	}
	return nil
}
