// SPDX-License-Identifier: Apache-2.0

// Package config reads what an administrator wrote into the one [Config] that
// the target runs on. It understands three languages: its own YAML, the
// targets.conf of tgt, and the JSON of gotgt.
//
// A file is read strictly. A key or directive that is unknown, misplaced or not
// supported is an error with file, line and column, and all errors of a file
// are reported together ([Errors]).
package config

import (
	"fmt"

	"github.com/gotgtd/gotgtd/target/iscsi"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
)

// Config is a complete configuration. One that comes from [Load] has passed
// [Config.Validate] and has every default filled in; one made in code needs
// [Config.SetDefaults] first.
type Config struct {
	// Files are the files that it was read from, in the order of reading, the
	// included ones among them.
	Files []string

	// PortalGroups say where to listen. None: the program that serves decides.
	PortalGroups []PortalGroup

	// Accounts are those that targets refer to by name; see Account.Shared.
	Accounts []SharedAccount

	// Discovery is what a discovery session has to prove.
	Discovery Auth

	// Targets are in the order of the file; from a targets.conf in the order
	// of their names, because tgt numbers them so.
	Targets []Target

	// Limits bound what initiators can make the daemon use.
	Limits Limits

	// Metrics say where Prometheus can ask. Zero: nowhere.
	Metrics Metrics

	// IgnoreErrors makes a reload go on though it brings logical units that can't
	// be opened. They are not ready then, as they are after a start in any case.
	IgnoreErrors bool

	// Warnings are what is permitted but should be looked at.
	// [Config.Validate] renews them.
	Warnings Errors

	notes      Errors // warnings of the parser
	places     places
	language   fileFormat
	newNumbers bool // see NewNumbers
}

// PortalGroup is a set of portals that share a target portal group tag
// (RFC 7143 4.4.1). A session's connections stay within one portal group.
type PortalGroup struct {
	Tag     uint16   // unique, at least 1
	Portals []Portal // nil is an error; an empty list is a group that listens nowhere
}

// Portal is one place to listen: exactly one of Address and Socket is set.
type Portal struct {
	Address string // IP address and TCP port, as in "192.0.2.1:3260" or "[2001:db8::1]:3260"
	Socket  string // name of a listening socket that the service manager passes (LISTEN_FDNAMES)

	// Announce are the addresses that discovery tells in place of the portal's
	// own, each an IP address or host name and a TCP port. They are where
	// initiators reach it through address translation.
	Announce []string
}

// At is where the portal listens: its address, or the name of its socket.
func (p *Portal) At() string {
	if p.Socket != "" {
		return "socket " + p.Socket
	}
	return p.Address
}

// Auth says who may log in and how either side proves who it is (CHAP,
// RFC 7143 12.1).
type Auth struct {
	// Users are the accounts of initiators. None: no proof is asked.
	Users []Account

	// Outgoing is the account with which the target proves itself to an
	// initiator that asks it to. It needs Users. nil: the target cannot.
	Outgoing *Account

	// Algorithms are the hashes that may be used, of [CHAPAlgorithms]; the
	// initiator chooses among them. Default: all.
	Algorithms []string
}

// CHAPAlgorithms are the names of the hashes that CHAP may use here.
var CHAPAlgorithms = []string{"md5", "sha1", "sha256", "sha3-256"}

// Account is a CHAP name and what proves it.
type Account struct {
	User string // 1 to 255 bytes

	// Secret is 1 to 255 bytes; fewer than 12 raise a warning (RFC 7143 12.1.3).
	Secret Secret

	// SecretFile is where Secret was read from; empty when it stands in the
	// configuration itself. No one but the file's owner may have access to it.
	SecretFile string

	// Initiators are the names of those that may use the account, in lower case;
	// "*", "?" and "[...]" as in a shell. None: all may.
	Initiators []string

	// Shared is the name of the account among [Config.Accounts] that this is;
	// empty for one of its own.
	Shared string
}

// Binds reports whether an initiator may use the account.
func (a *Account) Binds(initiator string) bool {
	return len(a.Initiators) == 0 || matchesName(a.Initiators, initiator)
}

// SharedAccount is an account that several targets can have.
type SharedAccount struct {
	Name    string // unique
	Account Account
}

// Secret is a CHAP secret. However it is printed, it prints as "***"; a
// conversion to string reveals it.
type Secret string

// String returns "***".
func (Secret) String() string { return "***" }

// GoString returns "***".
func (Secret) GoString() string { return "***" }

// Format prints "***" whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, "***") }

// MarshalText returns "***", so that no encoder lets a secret out.
func (Secret) MarshalText() ([]byte, error) { return []byte("***"), nil }

// Limits bound what initiators can make the daemon use.
type Limits = iscsi.NodeLimits

// Metrics say where Prometheus can ask, over HTTP.
type Metrics struct {
	// Listen is an IP address and TCP port, or "unix:" and the absolute path of a socket
	// that only the daemon's user can use; see [ParseMetrics].
	Listen string `yaml:"listen"`

	// WebConfig is a file in the format of Prometheus's exporter-toolkit that asks
	// for TLS, certificates or passwords; empty for none of them.
	WebConfig string `yaml:"web-config,omitempty"`
}

// TaskManagements are the values of [Target.TaskManagement].
var TaskManagements = []string{"own", "all"}

// Target is one iSCSI target.
type Target struct {
	// Name is the iSCSI name, in lower case: iqn., eui. or naa. (RFC 7143 4.2.7).
	Name string `yaml:"name"`

	// TID is the number that tgtadm would know the target by, from 1. Default:
	// the next free one, in the order of Targets.
	TID int `yaml:"tid,omitempty"`

	// Alias is a name for people (TargetAlias), at most 255 bytes.
	Alias string `yaml:"alias,omitempty"`

	// AnyName lets Name be none of RFC 7143, as tgt does: up to 223 bytes of UTF-8
	// without blanks and control characters.
	AnyName bool `yaml:"any-name,omitempty"`

	// Offline refuses all logins: the service is not available now.
	Offline bool `yaml:"offline,omitempty"`

	// TaskManagement is one of [TaskManagements]: whom TARGET WARM RESET and TARGET COLD
	// RESET concern, the sessions of the initiator that asks or all. Empty: TARGET COLD RESET
	// its own, TARGET WARM RESET all.
	TaskManagement string `yaml:"task-management,omitempty"`

	// LUNs are in the order of the file. LUN 0 is a controller if no one uses
	// the number.
	LUNs []LUN `yaml:"-"`

	// Access says which initiators may log in and see the target.
	Access Access `yaml:"-"`

	// Auth is what they have to prove.
	Auth Auth `yaml:"-"`

	// PortalGroups are the tags of the portal groups that offer the target.
	// None: all.
	PortalGroups []uint16 `yaml:"portal-groups,omitempty"`

	Parameters Parameters `yaml:"parameters,omitempty"`

	Pos Pos `yaml:"-"` // where the target was written
}

// Parameters bound what the target agrees to in a login (RFC 7143 13) and how
// it treats a session.
type Parameters = iscsi.Limits

// LUN is one logical unit. How its store is opened and what it says about itself are among its fields.
type LUN struct {
	Number uint16 `yaml:"-"` // 0 to 16383

	// Backend is what holds the blocks: "file" (the default: a regular file or
	// a block device), "ram", or "gotgt:NAME" for a plug-in that is registered
	// with gotgt.
	Backend string `yaml:"backend,omitempty"`

	// The path of "file" is absolute. Thin defaults to false with Preallocate.
	storage.Options `yaml:",inline"`

	Sync bool `yaml:"sync,omitempty"` // each write is on stable storage before it is answered (O_SYNC): WriteCache defaults to false

	// IO is the engine that moves the data. "sync" is the only one there is.
	// Empty: the best for the backend.
	IO string `yaml:"io,omitempty"`

	// From a targets.conf, SCSIID, Serial and NAA default to those that tgt has.
	scsi.UnitOptions `yaml:",inline"`

	// Access says which of the target's initiators see the logical unit. For the
	// others it is not there.
	Access Access `yaml:"-"`

	Pos Pos `yaml:"-"` // where the logical unit was written
}

// GivesTID tells whether the file itself gives the i-th target its number.
func (c *Config) GivesTID(i int) bool {
	_, ok := c.places[fmt.Sprintf("targets[%d].tid", i)]
	return ok
}

// Where returns the place at which the value with the given path was written,
// such as "targets[0].luns[1].path", or that of the innermost value around it
// that was. It is for messages about what only shows when the configuration is
// put to use.
func (c *Config) Where(path string) Pos {
	return c.places.find(path).pos
}
