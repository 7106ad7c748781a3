// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

func (v *validator) targets() {
	if len(v.cfg.Targets) > maxTargets {
		v.fail("targets", "%d targets, more than %d", len(v.cfg.Targets), maxTargets)
		return
	}
	names, tids := map[string]string{}, map[int]string{}
	for i := range v.cfg.Targets {
		t, at := &v.cfg.Targets[i], fmt.Sprintf("targets[%d]", i)
		if first, twice := names[t.Name]; twice && t.Name != "" {
			v.fail(at+".name", "target %q is defined already at %s", t.Name, v.before(first))
		}
		if first, twice := tids[t.TID]; twice {
			v.fail(at+".tid", "%d is the TID of the target at %s already", t.TID, v.before(first))
		}
		names[t.Name], tids[t.TID] = at+".name", at+".tid"
		v.target(t, at)
	}
	if len(v.cfg.Targets) == 0 {
		v.warn("targets", "there are no targets")
	}
}

func (v *validator) target(t *Target, at string) {
	v.name(t, at+".name")
	v.between(at+".tid", int64(t.TID), 1, MaxTID)
	if len(t.Alias) > maxAlias || strings.ContainsRune(t.Alias, 0) {
		v.fail(at+".alias", "must be at most %d bytes without NUL", maxAlias)
	}
	if t.TaskManagement != "" {
		v.oneOf(at+".task-management", t.TaskManagement, TaskManagements)
	}
	v.access(t.Access, t, at+".access")
	v.auth(t.Auth, at+".auth")
	t.Parameters.Check(v.at(at + ".parameters"))
	for i, tag := range t.PortalGroups {
		path := fmt.Sprintf("%s.portal-groups[%d]", at, i)
		if !slices.ContainsFunc(v.cfg.PortalGroups, func(g PortalGroup) bool { return g.Tag == tag }) {
			v.fail(path, "there is no portal group %d", tag)
		}
		if slices.Contains(t.PortalGroups[:i], tag) {
			v.fail(path, "portal group %d is given twice", tag)
		}
	}
	v.luns(t, at)
}

func (v *validator) name(t *Target, at string) {
	err := checkName(t.Name)
	switch {
	case t.Name == "":
		v.missing(at)
	case err == nil && strings.Contains(t.Name, "_"):
		v.warn(at, "%q has a \"_\" in it, which RFC 3722 forbids in iSCSI names: some initiators refuse it", t.Name)
	case err == nil:
	case !t.AnyName:
		v.fail(at, "%w (with any-name: true in the target it is served all the same)", err)
	default:
		if bad := checkAnyName(t.Name); bad != nil {
			v.fail(at, "%w", bad)
			return
		}
		v.warn(at, "%w; it is served, but some initiators refuse it", err)
	}
}

// access checks who may use t, or a logical unit of it.
func (v *validator) access(a Access, t *Target, at string) {
	for i, p := range a.Addresses {
		if !p.IsValid() {
			v.fail(fmt.Sprintf("%s.addresses[%d]", at, i), "is not an address or a network")
		}
	}
	v.initiators(a.Initiators, at)
	for i, name := range a.Accounts {
		if !slices.ContainsFunc(t.Auth.Users, func(u Account) bool { return u.User == name }) {
			v.fail(fmt.Sprintf("%s.accounts[%d]", at, i), "the target has no user %q in auth, and only those can be admitted by account: add it there first (gotgtd user add)", name)
		}
	}
}

// initiators checks names and patterns of them.
func (v *validator) initiators(list []string, at string) {
	for i, s := range list {
		if _, err := path.Match(s, ""); err != nil || s == "" {
			v.fail(fmt.Sprintf("%s.initiators[%d]", at, i), "%q is not an initiator's name or a pattern", s)
		}
	}
}
