// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gotgtd/gotgtd/internal/check"
)

// Bounds of what a configuration may ask for.
const (
	maxTargets = 16384
	maxLUN     = 16383          // the largest in flat space addressing (SAM-5 4.7.7.3)
	maxSize    = int64(1) << 62 // bytes of a logical unit
	maxAlias   = 255            // bytes, RFC 7143 13.7 and 6.1
	minSecret  = 12             // bytes, 96 bits, RFC 7143 12.1.3
)

var errMissing = errors.New("is missing")

// Validate reports everything that is wrong with a configuration whose
// defaults are filled in, as an [Errors], and puts into c.Warnings what is
// merely doubtful. It looks at the file system: a backing store must be there
// and may stand behind one logical unit only.
func (c *Config) Validate() error {
	return c.ValidateToPlan(nil)
}

// Late tells whether a logical unit of a target runs without its store already,
// which can't be opened. That is no reason to refuse a reload: it will not be
// ready then either. Nil: none.
type Late func(target string, lun uint16) bool

// ValidateToPlan is Validate for what a running process would do with the
// configuration.
func (c *Config) ValidateToPlan(late Late) error {
	return c.validate(validation{late: late}).sorted(c.Files).orNil()
}

// validation says what for.
type validation struct {
	starting bool // the stores will be opened next, which finds what is wrong with them
	late     Late
}

func (c *Config) validate(how validation) Errors {
	v := &validator{cfg: c, system: realSystem, validation: how, naas: map[string]namedLUN{}, stores: map[store]string{}}
	v.portalGroups()
	v.accounts()
	v.auth(c.Discovery, "discovery")
	v.cfg.Limits.Check(v.at("limits"))
	v.targets()
	c.Warnings = append(slices.Clone(c.notes), v.warnings...).sorted(c.Files)
	return v.errs
}

type validator struct {
	cfg      *Config
	errs     Errors
	warnings Errors
	system   system
	naas     map[string]namedLUN // logical units by NAA identifier
	stores   map[store]string    // logical units by what is behind them, as canonical paths
	validation
}

func (v *validator) fail(path, format string, args ...any) {
	v.errs = append(v.errs, v.cfg.places.errorf(path, format, args...))
}

func (v *validator) warn(path, format string, args ...any) {
	v.warnings = append(v.warnings, v.cfg.places.errorf(path, format, args...))
}

// at is for the check of a section.
func (v *validator) at(section string) check.Fail {
	return func(key string, err error) { v.fail(join(section, key), "%w", err) }
}

// missing fails because there is no value at path.
func (v *validator) missing(path string) {
	v.fail(path, "%w", errMissing)
}

// between fails unless lo <= n <= hi.
func (v *validator) between(path string, n, lo, hi int64) { v.at("").Range(path, n, lo, hi) }

// inRange fails unless n is what the key at path may be.
func (v *validator) inRange(path string, n int64) {
	r, _ := rangeOf(path)
	v.between(path, n, r.least, r.most)
}

// oneOf fails unless s is one of the choices.
func (v *validator) oneOf(path, s string, choices []string) { v.at("").OneOf(path, s, choices) }

// before names where a value that now comes again was first.
func (v *validator) before(path string) string {
	if p := v.cfg.Where(path).String(); p != "" {
		return p
	}
	return path
}

func (v *validator) portalGroups() {
	tags, portals, announced := map[uint16]string{}, map[string]string{}, map[string]announcement{}
	for i, g := range v.cfg.PortalGroups {
		at := fmt.Sprintf("portal-groups[%d]", i)
		switch first, twice := tags[g.Tag]; {
		case g.Tag == 0:
			v.inRange(at+".tag", 0)
		case twice:
			v.fail(at+".tag", "portal group %d is defined already at %s", g.Tag, v.before(first))
		default:
			tags[g.Tag] = at + ".tag"
		}
		if g.Portals == nil {
			v.missing(at + ".portals")
		}
		for j, p := range g.Portals {
			at := fmt.Sprintf("%s.portals[%d]", at, j)
			v.portal(p, at, portals)
			v.announce(p, g.Tag, at, announced)
		}
	}
}

func (v *validator) portal(p Portal, at string, known map[string]string) {
	if (p.Address == "") == (p.Socket == "") {
		v.fail(at, "must have an address or the name of a socket, one of the two")
		return
	}
	if p.Address != "" {
		if _, err := ParsePortal(p.Address); err != nil {
			v.fail(at+".address", "%w", err)
			return
		}
		if strings.HasSuffix(p.Address, ":0") {
			return // the system chooses the port, each time another
		}
	}
	if len(p.Socket) > 255 || strings.ContainsAny(p.Socket, ":\x00\n") {
		v.fail(at+".socket", "%q can't be the name of a passed socket", p.Socket)
	}
	if first, twice := known[p.At()]; twice {
		v.fail(at, "is the same portal as at %s", v.before(first))
		return
	}
	known[p.At()] = at
}

// announcement is where an address is announced first, and for which group.
type announcement struct {
	group uint16
	at    string
}

// announce checks the addresses that stand for a portal in discovery. One that
// were in two portal groups would tell initiators that a session may have
// connections in both.
func (v *validator) announce(p Portal, group uint16, at string, known map[string]announcement) {
	for i, s := range p.Announce {
		path := fmt.Sprintf("%s.announce[%d]", at, i)
		addr, err := ParseAnnounced(s)
		if err != nil {
			v.fail(path, "%w", err)
			continue
		}
		if first, twice := known[addr]; twice && first.group != group {
			v.fail(path, "%s is announced for portal group %d already at %s: an address is in one portal group", addr, first.group, v.before(first.at))
			continue
		}
		known[addr] = announcement{group, path}
	}
}

// accounts checks those that others refer to.
func (v *validator) accounts() {
	names := map[string]string{}
	for i, s := range v.cfg.Accounts {
		path := fmt.Sprintf("accounts[%d]", i)
		v.account(s.Account, path)
		if first, twice := names[s.Name]; twice && s.Name != "" {
			v.fail(path+".name", "there is an account %q already at %s: give one of them another name", s.Name, v.before(first))
		}
		names[s.Name] = path
	}
}

// auth checks one set of accounts.
func (v *validator) auth(a Auth, at string) {
	names := map[string]string{}
	for i, u := range a.Users {
		path := fmt.Sprintf("%s.users[%d]", at, i)
		v.account(u, path)
		if first, twice := names[u.User]; twice && u.User != "" {
			v.fail(path+".user", "%q has an account already at %s", u.User, v.before(first))
		}
		names[u.User] = path + ".user"
	}
	for i, s := range a.Algorithms {
		v.oneOf(fmt.Sprintf("%s.algorithms[%d]", at, i), s, CHAPAlgorithms)
	}
	if a.Outgoing == nil {
		return
	}
	path := at + ".outgoing"
	v.account(*a.Outgoing, path)
	if len(a.Outgoing.Initiators) > 0 {
		v.fail(path, "an account for initiators of some names is no account of the target's")
	}
	if len(a.Users) == 0 {
		v.fail(path, "the target proves itself only to initiators that have proved themselves: users are missing")
	}
	for _, u := range a.Users {
		if u.Secret == a.Outgoing.Secret && u.Secret != "" {
			v.fail(path+".secret", "is the secret of user %q as well: the two directions need different secrets (RFC 7143 12.1.3)", u.User)
		}
	}
}

// account checks an account, but for one that stands among the shared.
func (v *validator) account(a Account, at string) {
	if a.Shared != "" {
		return
	}
	if a.User == "" {
		v.missing(at + ".user")
	}
	if len(a.User) > 255 || strings.ContainsRune(a.User, 0) {
		v.fail(at+".user", "must be 1 to 255 bytes without NUL")
	}
	v.initiators(a.Initiators, at)
	at += ".secret"
	if a.SecretFile != "" {
		at += "-file"
	}
	switch n := len(a.Secret); {
	case n == 0:
		v.missing(at)
	case n > maxSecret:
		v.fail(at, "a secret has at most %d bytes", maxSecret)
	case n < minSecret:
		v.warn(at, "a secret of %d bytes is weak, and some initiators refuse it: use at least %d (RFC 7143 12.1.3)", n, minSecret)
	}
}
