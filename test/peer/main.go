// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Main runs the tests of a package that needs programs, which are there while the tests
// run, and returns their exit status. The process adopts what its children leave
// behind: generations of a daemon, when the one before has ended.
func Main(m interface{ Run() int }, programs ...*Program) int {
	dir, err := os.MkdirTemp("", "gotgtd-test-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, p := range programs {
		p.dir = dir
	}
	return m.Run()
}
