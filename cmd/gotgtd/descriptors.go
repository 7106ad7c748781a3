// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/target/config"
)

// otherDescriptors is more than is open besides connections and stores: portals, the control
// socket, the talk with another generation and the batch of sockets that is on its way.
const otherDescriptors = 512

// descriptors is how many files a configuration may have open: each store has a lock beside it, and what
// is asked for write errors.
func descriptors(c *config.Config) uint64 {
	n := c.Limits.Connections + otherDescriptors
	for i := range c.Targets {
		n += 3 * len(c.Targets[i].LUNs)
	}
	return uint64(n)
}

// rlimit is the system's limit of open files (RLIMIT_NOFILE) of this process.
type rlimit struct {
	get, set func(*unix.Rlimit) error
}

var openFiles = rlimit{
	get: func(l *unix.Rlimit) error { return unix.Getrlimit(unix.RLIMIT_NOFILE, l) },
	set: func(l *unix.Rlimit) error { return unix.Setrlimit(unix.RLIMIT_NOFILE, l) },
}

// raise makes the limit at least need. The error says what to do if the system does not let it.
func (r rlimit) raise(need uint64, connections int) error {
	var l unix.Rlimit
	if err := r.get(&l); err != nil {
		return fmt.Errorf("can't get the limit of open files: %w", err)
	}
	if l.Cur >= need {
		return nil
	}
	if err := r.set(&unix.Rlimit{Cur: need, Max: max(l.Max, need)}); err != nil {
		advice := fmt.Sprintf("set LimitNOFILE=%d in the unit, or ulimit -n %[1]d", need)
		if fit := int64(l.Cur) - int64(need) + int64(connections); fit > 0 {
			advice += fmt.Sprintf(", or limits.connections to %d at most", fit)
		}
		return fmt.Errorf("limits.connections is %d, which needs %d open files, and the process may have %d: initiators are refused before that: %s (%w)",
			connections, need, l.Cur, advice, err)
	}
	return nil
}
