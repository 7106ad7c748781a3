// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"reflect"

	"github.com/gotgtd/gotgtd/target/storage"
)

// YAML returns the configuration in the native format, without what is the
// default anyway. [Parse] makes the same Config of it, provided that it has
// the secrets: without withSecrets those that stand in the configuration
// itself are left out, and have to be filled in by hand.
func (c *Config) YAML(withSecrets bool) ([]byte, error) {
	return (&yamlWriter{withSecrets: withSecrets}).write(c)
}

// Resolved is [Config.YAML] with the identity of each logical unit written
// out, the default ones too.
func (c *Config) Resolved(withSecrets bool) ([]byte, error) {
	return (&yamlWriter{withSecrets: withSecrets, identities: true}).write(c)
}

func (w *yamlWriter) write(c *Config) ([]byte, error) {
	e := &yamlEncoder{}
	e.fields(reflect.ValueOf(w.config(c)).Elem(), "")
	if e.err != nil {
		return nil, fmt.Errorf("can't write the configuration as YAML: %w", e.err)
	}
	return []byte(e.out.String()), nil
}

// yamlWriter makes the YAML file's types out of a Config.
type yamlWriter struct {
	withSecrets bool
	expand      bool // shared accounts where they are used, not by their names
	identities  bool // also those that are as by default
}

func (w *yamlWriter) config(c *Config) *fileConfig {
	f := &fileConfig{IgnoreErrors: c.IgnoreErrors, Discovery: w.auth(c.Discovery), Limits: w.limits(c.Limits)}
	if c.Metrics.Listen != "" {
		f.Metrics = &c.Metrics
	}
	for _, g := range c.PortalGroups {
		fg := filePortalGroup{Tag: g.Tag, Portals: []filePortal{}}
		for _, p := range g.Portals {
			fg.Portals = append(fg.Portals, filePortal(p))
		}
		f.PortalGroups = append(f.PortalGroups, fg)
	}
	for _, s := range c.Accounts {
		f.Accounts = append(f.Accounts, w.shared(s))
	}
	for i := range c.Targets {
		f.Targets = append(f.Targets, w.target(&c.Targets[i]))
	}
	return f
}

func (w *yamlWriter) limits(l Limits) *Limits {
	var top Limits
	top.SetDefaults()
	def := Limits{Sessions: l.Sessions, Connections: l.Connections, Logins: l.Logins} // the defaults of shares follow from these
	def.SetDefaults()
	def.Sessions, def.Connections, def.Logins = top.Sessions, top.Connections, top.Logins
	omitDefaults(&l, &def)
	return orNil(l)
}

func (w *yamlWriter) auth(a Auth) *fileAuth {
	f := fileAuth{}
	for _, u := range a.Users {
		f.Users = append(f.Users, w.account(u))
	}
	if a.Outgoing != nil {
		f.Outgoing = new(w.account(*a.Outgoing))
	}
	if !reflect.DeepEqual(a.Algorithms, CHAPAlgorithms) {
		f.Algorithms = a.Algorithms
	}
	return orNil(f)
}

func (w *yamlWriter) account(a Account) fileAccount {
	if a.Shared != "" && !w.expand {
		return fileAccount{Account: a.Shared}
	}
	f := fileAccount{User: a.User, SecretFile: a.SecretFile, Initiators: a.Initiators}
	if w.withSecrets && a.SecretFile == "" {
		f.Secret = new(fileSecret(a.Secret))
	}
	return f
}

func (w *yamlWriter) shared(s SharedAccount) fileShared {
	a := w.account(s.Account)
	f := fileShared{User: a.User, Secret: a.Secret, SecretFile: a.SecretFile, Initiators: a.Initiators}
	if s.Name != a.User {
		f.Name = s.Name
	}
	return f
}

func (w *yamlWriter) target(t *Target) fileTarget {
	f := fileTarget{Target: *t, Access: w.access(t.Access), Auth: w.auth(t.Auth)}
	f.Parameters = w.parameters(t.Parameters)
	for _, l := range t.LUNs {
		f.LUNs = append(f.LUNs, w.lun(l, t.Name))
	}
	return f
}

func (w *yamlWriter) access(a Access) *fileAccess {
	if len(a.Addresses)+len(a.Initiators)+len(a.Accounts) == 0 && !a.Nobody {
		return nil
	}
	f := &fileAccess{Initiators: a.Initiators, Accounts: a.Accounts, Nobody: a.Nobody}
	if a.All {
		f.Addresses = append(f.Addresses, "ALL")
	}
	for _, p := range a.Addresses {
		f.Addresses = append(f.Addresses, prefixString(p))
	}
	return f
}

func (w *yamlWriter) parameters(p Parameters) Parameters {
	var def Parameters
	def.SetDefaults()
	def.FirstBurstLength = min(def.FirstBurstLength, p.MaxBurstLength)
	omitDefaults(&p, &def)
	return p
}

func (w *yamlWriter) lun(l LUN, target string) fileLUN {
	number := l.Number
	def := LUN{Number: number, Sync: l.Sync, Options: storage.Options{Preallocate: l.Preallocate}}
	def.setDefaults(target)
	def.Sync, def.Preallocate = false, false
	if w.identities {
		def.SCSIID, def.Serial, def.NAA, def.Vendor, def.Product, def.Revision = "", "", "", "", "", ""
	}
	omitDefaults(&l, &def)
	return fileLUN{Number: &number, LUN: l, Access: w.access(l.Access)}
}

// omitDefaults makes each field of v zero that is as in def.
func omitDefaults[T any](v, def *T) {
	omitDefaultFields(reflect.ValueOf(v).Elem(), reflect.ValueOf(def).Elem())
}

func omitDefaultFields(value, usual reflect.Value) {
	for i := range value.NumField() {
		if value.Type().Field(i).Anonymous {
			omitDefaultFields(value.Field(i), usual.Field(i))
		} else if reflect.DeepEqual(value.Field(i).Interface(), usual.Field(i).Interface()) {
			value.Field(i).SetZero()
		}
	}
}

// orNil returns nil for a section of the file with nothing in it.
func orNil[T any](section T) *T {
	if reflect.ValueOf(section).IsZero() {
		return nil
	}
	return &section
}
