// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"cmp"
	"time"

	"github.com/gotgtd/gotgtd/internal/check"
)

// NodeLimits bound what initiators can make a [Node] use. A zero is the default. The keys are
// those of a configuration.
type NodeLimits struct {
	Sessions     int           `yaml:"sessions,omitempty"`      // sessions at a time, discovery sessions among them; default 1024
	Connections  int           `yaml:"connections,omitempty"`   // TCP connections at a time; default 4096
	Logins       int           `yaml:"logins,omitempty"`        // connections that have not finished their login; default 128
	LoginTimeout time.Duration `yaml:"login-timeout,omitempty"` // from accept to the end of the login; default 15 s

	// Memory is how many bytes of buffers commands under way have before command windows
	// shrink and R2Ts wait; default 1 GiB.
	Memory int64 `yaml:"memory,omitempty,size"`
}

const (
	maxAtATime = 1 << 16  // sessions, connections and logins
	minMemory  = 64 << 20 // bytes
)

// SetDefaults replaces each zero by its default.
func (l *NodeLimits) SetDefaults() {
	l.Sessions = cmp.Or(l.Sessions, 1024)
	l.Connections = cmp.Or(l.Connections, 4096)
	l.Logins = cmp.Or(l.Logins, 128)
	l.LoginTimeout = cmp.Or(l.LoginTimeout, 15*time.Second)
	l.Memory = cmp.Or(l.Memory, 1<<30)
}

// Check tells of each limit that is impossible, once the defaults are there.
func (l *NodeLimits) Check(fail check.Fail) {
	fail.Range("sessions", int64(l.Sessions), 1, maxAtATime)
	fail.Range("connections", int64(l.Connections), 1, maxAtATime)
	fail.Range("logins", int64(l.Logins), 1, maxAtATime)
	fail.Time("login-timeout", l.LoginTimeout)
	if l.Memory < minMemory {
		fail.Errorf("memory", "must be at least %dMiB", minMemory>>20)
	}
}
