// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"cmp"
	"log/slog"
	"time"
)

// Options configures a [Node]. The zero value is valid.
type Options struct {
	Log             *slog.Logger // nil: slog.Default()
	Limits          NodeLimits
	Workers         int // goroutines for commands that may block; 0: 64
	FastPaths       FastPaths
	TeardownTimeout time.Duration // how long a reinstated session's running commands are waited for; 0: 30 s

	// Arena has the buffers lie in a [mem.Arena] instead of Go's heap. Resident, if set, is told
	// then how many bytes of it have memory; see [mem.ArenaOptions].
	Arena    bool
	Resident func(bytes int64)

	// Opened and Ended, if set, are told of each session with a target: when its first
	// connection has authenticated and before it is answered, and when nothing of
	// it runs any more, with the reason, nil for a logout. Of sessions that
	// have come from another process or gone to one they are not told. They are called
	// on a connection's goroutine, which a freeze waits for.
	Opened func(SessionInfo)
	Ended  func(s SessionInfo, why error)
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	o.Limits.SetDefaults()
	o.Workers = cmp.Or(o.Workers, 64)
	o.TeardownTimeout = cmp.Or(o.TeardownTimeout, 30*time.Second)
	return o
}
