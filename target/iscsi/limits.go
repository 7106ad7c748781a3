// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"cmp"
	"time"

	"github.com/gotgtd/gotgtd/internal/check"
	"github.com/gotgtd/gotgtd/target/account"
)

// NodeLimits bound what initiators can make a [Node] use. A zero is the default. The keys are
// those of a configuration.
type NodeLimits struct {
	Sessions     int           `yaml:"sessions,omitempty"`      // sessions with targets at a time; default 1024
	Connections  int           `yaml:"connections,omitempty"`   // TCP connections at a time; default 4096
	Logins       int           `yaml:"logins,omitempty"`        // connections that have not finished their login; default 128
	LoginTimeout time.Duration `yaml:"login-timeout,omitempty"` // from accept to the end of the login; default 15 s
	R2TTimeout   time.Duration `yaml:"r2t-timeout,omitempty"`   // how long an R2T may be unanswered before its session ends; default 30 s

	// Memory is how many bytes initiators can make the Node use for commands, their data and
	// what else they send; see package account. At least 32 KiB for each of Sessions, Logins and
	// DiscoverySessions. Default 1 GiB.
	Memory int64 `yaml:"memory,omitempty,size"`

	// Shares of the above, so that others have theirs. An IPv6 network of 64 bits counts as
	// one address.
	SessionsPerInitiator  int `yaml:"sessions-per-initiator,omitempty"`  // of one name and account; default a quarter of Sessions, at least 16
	SessionsPerAddress    int `yaml:"sessions-per-address,omitempty"`    // default half of Sessions, at least 32
	ConnectionsPerAddress int `yaml:"connections-per-address,omitempty"` // default half of Connections, at least 64
	LoginsPerAddress      int `yaml:"logins-per-address,omitempty"`      // default a quarter of Logins, at least 4

	FirstRequestTimeout time.Duration `yaml:"first-request-timeout,omitempty"` // from accept to the first whole PDU; default 5 s
	DiscoverySessions   int           `yaml:"discovery-sessions,omitempty"`    // discovery sessions at a time; default 64
	DiscoveryTimeout    time.Duration `yaml:"discovery-timeout,omitempty"`     // how long a discovery session lasts; default 60 s
}

const (
	maxAtATime   = 1 << 16  // sessions, connections and logins
	maxDiscovery = 1 << 12  // sessions
	minMemory    = 64 << 20 // bytes
)

// SetDefaults replaces each zero by its default.
func (l *NodeLimits) SetDefaults() {
	l.Sessions = cmp.Or(l.Sessions, 1024)
	l.Connections = cmp.Or(l.Connections, 4096)
	l.Logins = cmp.Or(l.Logins, 128)
	l.LoginTimeout = cmp.Or(l.LoginTimeout, 15*time.Second)
	l.R2TTimeout = cmp.Or(l.R2TTimeout, 30*time.Second)
	l.Memory = cmp.Or(l.Memory, 1<<30)
	l.SessionsPerInitiator = cmp.Or(l.SessionsPerInitiator, max(16, l.Sessions/4))
	l.SessionsPerAddress = cmp.Or(l.SessionsPerAddress, max(32, l.Sessions/2))
	l.ConnectionsPerAddress = cmp.Or(l.ConnectionsPerAddress, max(64, l.Connections/2))
	l.LoginsPerAddress = cmp.Or(l.LoginsPerAddress, max(4, l.Logins/4))
	l.FirstRequestTimeout = cmp.Or(l.FirstRequestTimeout, 5*time.Second)
	l.DiscoverySessions = cmp.Or(l.DiscoverySessions, 64)
	l.DiscoveryTimeout = cmp.Or(l.DiscoveryTimeout, time.Minute)
}

// accounts is how many accounts of the memory there are at most.
func (l *NodeLimits) accounts() int { return l.Sessions + l.DiscoverySessions + l.Logins }

// Check tells of each limit that is impossible, once the defaults are there.
func (l *NodeLimits) Check(fail check.Fail) {
	fail.Range("sessions", int64(l.Sessions), 1, maxAtATime)
	fail.Range("connections", int64(l.Connections), 1, maxAtATime)
	fail.Range("logins", int64(l.Logins), 1, maxAtATime)
	fail.Time("login-timeout", l.LoginTimeout)
	fail.Time("r2t-timeout", l.R2TTimeout)
	fail.Range("sessions-per-initiator", int64(l.SessionsPerInitiator), 1, maxAtATime)
	fail.Range("sessions-per-address", int64(l.SessionsPerAddress), 1, maxAtATime)
	fail.Range("connections-per-address", int64(l.ConnectionsPerAddress), 1, maxAtATime)
	fail.Range("logins-per-address", int64(l.LoginsPerAddress), 1, maxAtATime)
	fail.Time("first-request-timeout", l.FirstRequestTimeout)
	fail.Range("discovery-sessions", int64(l.DiscoverySessions), 1, maxDiscovery)
	fail.Time("discovery-timeout", l.DiscoveryTimeout)
	switch least := account.Least(l.accounts()); {
	case l.Memory < minMemory:
		fail.Errorf("memory", "must be at least %dMiB", minMemory>>20)
	case l.Memory < least:
		fail.Errorf("memory", "must be at least %dMiB for sessions: %d, logins: %d and discovery-sessions: %d, %dKiB for each: raise it or lower these",
			(least+1<<20-1)>>20, l.Sessions, l.Logins, l.DiscoverySessions, account.Least(1)>>10)
	}
}
