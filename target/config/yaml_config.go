// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// parseYAMLConfig reads the native format.
func parseYAMLConfig(name string, data []byte) (*Config, Errors) {
	r := &reader{file: name, places: places{}}
	var f fileConfig
	r.read(data, &f)
	b := &builder{cfg: &Config{Files: []string{name}, places: r.places, notes: r.notes}, dir: directory(name), errs: r.errs}
	b.config(&f)
	return b.cfg, b.errs
}

// builder makes a Config out of a file's types.
type builder struct {
	cfg  *Config
	dir  string // what relative paths are relative to
	errs Errors
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

func (b *builder) config(f *fileConfig) {
	b.cfg.IgnoreErrors = f.IgnoreErrors
	for i, g := range f.PortalGroups {
		b.cfg.PortalGroups = append(b.cfg.PortalGroups, b.portalGroup(g, fmt.Sprintf("portal-groups[%d]", i)))
	}
	b.cfg.Discovery = b.auth(f.Discovery, "discovery")
	if l := f.Limits; l != nil {
		b.cfg.Limits = Limits{l.Sessions, l.Connections, l.Logins, time.Duration(l.LoginTimeout), int64(l.Memory)}
	}
	for i := range f.Targets {
		b.cfg.Targets = append(b.cfg.Targets, b.target(&f.Targets[i], fmt.Sprintf("targets[%d]", i)))
	}
}

func (b *builder) portalGroup(f filePortalGroup, at string) PortalGroup {
	g := PortalGroup{Tag: f.Tag}
	for i, p := range f.Portals {
		portal := Portal{Socket: p.Socket}
		if p.Address != "" {
			addr, err := ParsePortal(p.Address)
			b.fail(fmt.Sprintf("%s.portals[%d].address", at, i), err)
			portal.Address = addr
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
	a := Account{User: f.User, SecretFile: b.path(f.SecretFile)}
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
	t := Target{
		Name: strings.ToLower(f.Name), TID: f.TID, Alias: f.Alias, Offline: f.Offline,
		PortalGroups: f.PortalGroups, Auth: b.auth(f.Auth, at+".auth"), Pos: b.cfg.Where(at),
	}
	if f.Access != nil {
		for i, s := range f.Access.Addresses {
			b.fail(fmt.Sprintf("%s.access.addresses[%d]", at, i), t.Access.add(s))
		}
		for i, s := range f.Access.Initiators {
			b.fail(fmt.Sprintf("%s.access.initiators[%d]", at, i), t.Access.addInitiator(s))
		}
	}
	if f.Parameters != nil {
		t.Parameters = f.Parameters.parameters()
	}
	for i := range f.LUNs {
		t.LUNs = append(t.LUNs, b.lun(&f.LUNs[i], fmt.Sprintf("%s.luns[%d]", at, i)))
	}
	return t
}

func (f *fileParameters) parameters() Parameters {
	return Parameters{
		MaxRecvDataSegmentLength: int(f.MaxRecvDataSegmentLength),
		MaxXmitDataSegmentLength: int(f.MaxXmitDataSegmentLength),
		MaxBurstLength:           int(f.MaxBurstLength),
		FirstBurstLength:         int(f.FirstBurstLength),
		InitialR2T:               f.InitialR2T,
		ImmediateData:            f.ImmediateData,
		MaxOutstandingR2T:        f.MaxOutstandingR2T,
		MaxConnections:           f.MaxConnections,
		HeaderDigest:             f.HeaderDigest,
		DataDigest:               f.DataDigest,
		DefaultTime2Wait:         f.DefaultTime2Wait,
		DefaultTime2Retain:       f.DefaultTime2Retain,
		QueueDepth:               f.QueueDepth,
		NOPInterval:              time.Duration(f.NOPInterval),
		NOPTimeout:               time.Duration(f.NOPTimeout),
	}
}

func (b *builder) lun(f *fileLUN, at string) LUN {
	l := LUN{
		Backend: f.Backend, Path: f.Path, Size: int64(f.Size), Create: f.Create, Options: f.Options,
		ReadOnly: f.ReadOnly, WriteCache: f.WriteCache, BlockSize: f.BlockSize, Thin: f.Thin,
		Direct: f.Direct, Sync: f.Sync, IO: f.IO, AllowInUse: f.AllowInUse,
		SCSIID: f.SCSIID, Serial: f.Serial, NAA: string(f.NAA),
		Vendor: f.Vendor, Product: f.Product, Revision: f.Revision,
		Removable: f.Removable, Offline: f.Offline, DescriptorSense: f.DescriptorSense,
		PhysicalBlockExponent: f.PhysicalBlockExponent, LowestAlignedLBA: f.LowestAlignedLBA,
		OptimalTransferGranularity: f.OptimalTransferGranularity,
		OptimalTransferLength:      f.OptimalTransferLength,
		Pos:                        b.cfg.Where(at),
	}
	if f.Number == nil {
		b.fail(at+".lun", errMissing)
	} else {
		l.Number = *f.Number
	}
	if l.Backend == "" || l.Backend == "file" {
		l.Path = b.path(l.Path)
	}
	for i, m := range f.ModePages {
		data, err := hex.DecodeString(string(m.Data))
		if err != nil {
			b.fail(fmt.Sprintf("%s.mode-pages[%d].data", at, i), errors.New("must be bytes as hexadecimal digits"))
		}
		l.ModePages = append(l.ModePages, ModePage{m.Page, m.Subpage, data})
	}
	return l
}
