// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// parseYAMLConfig reads the native format.
func parseYAMLConfig(name string, data []byte) (*Config, Errors) {
	r := &reader{file: name, places: places{}}
	var f fileConfig
	r.read(data, &f)
	in := newIncluder(name)
	in.file(name, &fileIncluded{f.Include, f.Accounts, f.Targets}, r)
	b := &builder{cfg: &Config{Files: in.files, places: in.places, notes: in.notes}, dir: directory(name), errs: in.errs}
	b.config(&f, in)
	return b.cfg, b.errs
}

// builder makes a Config out of a file's types.
type builder struct {
	cfg  *Config
	dir  string // what relative paths are relative to
	errs Errors
}

// in sets what relative paths are relative to.
func (b *builder) in(dir string) *builder {
	b.dir = dir
	return b
}

func (b *builder) fail(path string, err error) {
	if err != nil {
		b.errs = append(b.errs, b.cfg.places.errorf(path, "%w", err))
	}
}

// path makes a path of the file absolute.
func (b *builder) path(s string) string {
	if s == "" || filepath.IsAbs(s) {
		return s
	}
	return filepath.Join(b.dir, s)
}

func (b *builder) config(f *fileConfig, in *includer) {
	b.cfg.IgnoreErrors = f.IgnoreErrors
	for i, s := range in.accounts {
		b.cfg.Accounts = append(b.cfg.Accounts, b.in(s.dir).shared(s.value, fmt.Sprintf("accounts[%d]", i)))
	}
	b.in(in.dir)
	for i, g := range f.PortalGroups {
		b.cfg.PortalGroups = append(b.cfg.PortalGroups, b.portalGroup(g, fmt.Sprintf("portal-groups[%d]", i)))
	}
	b.cfg.Discovery = b.auth(f.Discovery, "discovery")
	if l := f.Limits; l != nil {
		b.cfg.Limits = *l
	}
	if m := f.Metrics; m != nil {
		b.cfg.Metrics = b.metrics(*m)
	}
	for i, t := range in.targets {
		b.cfg.Targets = append(b.cfg.Targets, b.in(t.dir).target(t.value, fmt.Sprintf("targets[%d]", i)))
	}
}

func (b *builder) metrics(m Metrics) Metrics {
	listen, err := ParseMetrics(m.Listen)
	b.fail("metrics.listen", err)
	m = Metrics{listen, b.path(m.WebConfig)}
	if m.WebConfig != "" && checkWebConfig != nil {
		b.fail("metrics.web-config", checkWebConfig(m.WebConfig))
	}
	return m
}

// checkWebConfig says what is wrong with the file of metrics.web-config.
var checkWebConfig func(file string) error

// SetWebConfigCheck gives what looks into the file of metrics.web-config when a configuration is
// read. It is for the init function of a program that serves metrics: who embeds this package is
// not to link what knows the format.
func SetWebConfigCheck(check func(file string) error) { checkWebConfig = check }

// shared makes an account that others refer to. Its name is that of the user
// unless it has one.
func (b *builder) shared(f *fileShared, at string) SharedAccount {
	a := fileAccount{User: f.User, Secret: f.Secret, SecretFile: f.SecretFile, Initiators: f.Initiators}
	s := SharedAccount{f.Name, b.account(a, at)}
	orDefault(&s.Name, f.User)
	return s
}

// reference finds the shared account that one stands for.
func (b *builder) reference(f fileAccount, at string) Account {
	if f.User != "" || f.Secret != nil || f.SecretFile != "" || len(f.Initiators) > 0 {
		b.fail(at+".account", errors.New("stands for an account with all it has: leave out user, secret, secret-file and initiators"))
	}
	for _, s := range b.cfg.Accounts {
		if s.Name == f.Account {
			s.Account.Shared = s.Name
			return s.Account
		}
	}
	b.fail(at+".account", fmt.Errorf("there is no %q in accounts", f.Account))
	return Account{Shared: f.Account}
}

func (b *builder) portalGroup(f filePortalGroup, at string) PortalGroup {
	g := PortalGroup{Tag: f.Tag}
	if f.Portals != nil {
		g.Portals = []Portal{}
	}
	for i, p := range f.Portals {
		portal := Portal{Socket: p.Socket}
		if p.Address != "" {
			addr, err := ParsePortal(p.Address)
			b.fail(fmt.Sprintf("%s.portals[%d].address", at, i), err)
			portal.Address = addr
		}
		for j, s := range p.Announce {
			addr, err := ParseAnnounced(s)
			b.fail(fmt.Sprintf("%s.portals[%d].announce[%d]", at, i, j), err)
			portal.Announce = append(portal.Announce, addr)
		}
		g.Portals = append(g.Portals, portal)
	}
	return g
}

func (b *builder) auth(f *fileAuth, at string) Auth {
	if f == nil {
		return Auth{}
	}
	a := Auth{}
	for i, u := range f.Users {
		a.Users = append(a.Users, b.account(u, fmt.Sprintf("%s.users[%d]", at, i)))
	}
	if f.Outgoing != nil {
		a.Outgoing = new(b.account(*f.Outgoing, at+".outgoing"))
	}
	for _, s := range f.Algorithms {
		a.Algorithms = append(a.Algorithms, strings.ToLower(s))
	}
	return a
}

func (b *builder) account(f fileAccount, at string) Account {
	if f.Account != "" {
		return b.reference(f, at)
	}
	a := Account{User: f.User, SecretFile: b.path(f.SecretFile)}
	for i, s := range f.Initiators {
		s, err := initiatorPattern(s)
		b.fail(fmt.Sprintf("%s.initiators[%d]", at, i), err)
		a.Initiators = append(a.Initiators, s)
	}
	switch {
	case f.Secret != nil && f.SecretFile != "":
		b.fail(at+".secret-file", errors.New("is given beside secret: one of the two"))
	case f.Secret != nil:
		a.Secret = Secret(*f.Secret)
	case f.SecretFile != "":
		secret, err := readSecret(a.SecretFile)
		b.fail(at+".secret-file", err)
		a.Secret = secret
	}
	return a
}

func (b *builder) target(f *fileTarget, at string) Target {
	t := f.Target
	t.Auth, t.Access, t.Pos = b.auth(f.Auth, at+".auth"), b.access(f.Access, at+".access"), b.cfg.Where(at)
	for i := range f.LUNs {
		t.LUNs = append(t.LUNs, b.lun(&f.LUNs[i], fmt.Sprintf("%s.luns[%d]", at, i)))
	}
	return t
}

func (b *builder) access(f *fileAccess, at string) Access {
	var a Access
	if f == nil {
		return a
	}
	for i, s := range f.Addresses {
		b.fail(fmt.Sprintf("%s.addresses[%d]", at, i), a.add(s))
	}
	for i, s := range f.Initiators {
		b.fail(fmt.Sprintf("%s.initiators[%d]", at, i), a.addInitiator(s))
	}
	a.Accounts, a.Nobody = f.Accounts, f.Nobody
	return a
}

func (b *builder) lun(f *fileLUN, at string) LUN {
	l := f.LUN
	l.Access, l.Pos = b.access(f.Access, at+".access"), b.cfg.Where(at)
	if f.Number == nil {
		b.fail(at+".lun", errMissing)
	} else {
		l.Number = *f.Number
	}
	if l.Backend == "" || l.Backend == "file" {
		l.Path = b.path(l.Path)
	}
	return l
}
