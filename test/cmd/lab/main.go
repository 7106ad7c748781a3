// SPDX-License-Identifier: Apache-2.0

// Command lab runs the project under real systemd, the Linux kernel's initiator and
// Xen, in emulated machines: see package lab. It runs at the module's root, as
// root, and ends with "N passed, N failed".
//
//	lab [-short] [-side-by-side N] [-out DIR] SUITE...
package main

import (
	"os"

	"github.com/gotgtd/gotgtd/test/lab"
	"github.com/gotgtd/gotgtd/test/lab/initiator"
	"github.com/gotgtd/gotgtd/test/lab/migrate"
	"github.com/gotgtd/gotgtd/test/lab/power"
	"github.com/gotgtd/gotgtd/test/lab/start"
	"github.com/gotgtd/gotgtd/test/lab/systemd"
	"github.com/gotgtd/gotgtd/test/lab/xen"
)

func main() {
	// The longest come first, so that none of them goes on when all others have ended.
	os.Exit(lab.Main([]lab.Suite{
		migrate.Suite,
		xen.Suite,
		systemd.Suite,
		power.Suite,
		initiator.Suite,
		start.Suite,
		initiator.Control,
	}))
}
