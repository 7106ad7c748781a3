// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/target/config"
)

func TestDescriptors(t *testing.T) {
	c := &config.Config{Limits: config.Limits{Connections: 100}, Targets: []config.Target{{LUNs: make([]config.LUN, 3)}, {LUNs: make([]config.LUN, 2)}}}
	if got := descriptors(c); got != 100+15+otherDescriptors {
		t.Errorf("%d descriptors", got)
	}
}

// TestRaiseDescriptors: a limit that is too low is raised, or named with the way out.
func TestRaiseDescriptors(t *testing.T) {
	for name, c := range map[string]struct {
		now     unix.Rlimit
		refused bool
		after   unix.Rlimit
		want    string
	}{
		"enough":        {now: unix.Rlimit{Cur: 5000, Max: 5000}, refused: true, after: unix.Rlimit{Cur: 5000, Max: 5000}},
		"below maximum": {now: unix.Rlimit{Cur: 1024, Max: 1 << 20}, after: unix.Rlimit{Cur: 4608, Max: 1 << 20}},
		"above maximum": {now: unix.Rlimit{Cur: 1024, Max: 1024}, after: unix.Rlimit{Cur: 4608, Max: 4608}},
		"not allowed": {now: unix.Rlimit{Cur: 1024, Max: 1024}, refused: true, after: unix.Rlimit{Cur: 1024, Max: 1024},
			want: "limits.connections is 4096, which needs 4608 open files, and the process may have 1024: initiators are refused before that: set LimitNOFILE=4608 in the unit, or ulimit -n 4608, or limits.connections to 512 at most (operation not permitted)"},
		"none left": {now: unix.Rlimit{Cur: 256, Max: 256}, refused: true, after: unix.Rlimit{Cur: 256, Max: 256}, want: "ulimit -n 4608 (operation not permitted)"},
	} {
		t.Run(name, func(t *testing.T) {
			l := c.now
			r := rlimit{
				get: func(to *unix.Rlimit) error { *to = l; return nil },
				set: func(to *unix.Rlimit) error {
					if c.refused {
						return unix.EPERM
					}
					l = *to
					return nil
				},
			}
			err := r.raise(4608, 4096)
			if (err != nil) != (c.want != "") || err != nil && !strings.HasSuffix(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if l != c.after {
				t.Errorf("the limit is %+v, want %+v", l, c.after)
			}
		})
	}
}
