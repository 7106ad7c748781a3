// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"fmt"
	"strings"

	"github.com/gotgtd/gotgtd/test/lab"
)

// Where gotgtd serves. The second portal is on a network of its own.
const (
	portal1 = lab.HostAddress + ":3260"
	portal2 = lab.HostAddress2 + ":3260"
)

// The targets. Each step has its own, so that what one provokes does not come
// to another's logical units.
const (
	loadTarget   = "iqn.2015-02.com.stu31:load"   // I/O from the beginning to the end
	diskTarget   = "iqn.2015-02.com.stu31:disk"   // file systems
	scsiTarget   = "iqn.2015-02.com.stu31:scsi"   // SCSI commands
	onlineTarget = "iqn.2015-02.com.stu31:online" // whose logical units change
	sharedTarget = "iqn.2015-02.com.stu31:shared" // for two machines
	pathsTarget  = "iqn.2015-02.com.stu31:paths"  // at both portals
)

// Sizes of the logical units, in MiB. mkfs.xfs refuses less than 300.
const (
	diskSize   = 480
	onlineSize = 32
	otherSize  = 32
)

// serves is what gotgtd is to serve: what can change of its configuration.
type serves struct {
	secondPortal bool
	online       []int // numbers of onlineTarget's logical units
	grown        int64 // MiB, of the first of them; 0: as at the beginning
}

// config is gotgtd's configuration.
func (s serves) config() string {
	var b strings.Builder
	fmt.Fprintf(&b, "portal-groups:\n  - tag: 1\n    portals: [{address: %q}]\n", portal1)
	paths := "[1]"
	if s.secondPortal {
		fmt.Fprintf(&b, "  - tag: 2\n    portals: [{address: %q}]\n", portal2)
		paths = "[1, 2]"
	}
	b.WriteString("targets:\n")
	target := func(iqn, groups string, size int, luns ...int) {
		fmt.Fprintf(&b, "  - name: %q\n    portal-groups: %s\n    luns:\n", iqn, groups)
		for _, n := range luns {
			size := int64(size)
			if iqn == onlineTarget && n == 1 && s.grown > 0 {
				size = s.grown
			}
			fmt.Fprintf(&b, "      - {lun: %d, path: %s, size: %dMiB, create: true, serial: %q}\n", n, imageFile(iqn, n), size, serial(iqn, n))
		}
	}
	target(loadTarget, "[1]", otherSize, 1)
	target(diskTarget, "[1]", diskSize, 1)
	target(scsiTarget, "[1]", otherSize, 1)
	target(onlineTarget, "[1]", onlineSize, s.online...)
	target(sharedTarget, "[1]", otherSize, 1)
	target(pathsTarget, paths, otherSize, 1)
	return b.String()
}

// serial is the serial number of a logical unit.
func serial(iqn string, lun int) string {
	_, name, _ := strings.Cut(iqn, ":")
	return fmt.Sprintf("%s-%d", name, lun)
}

// imageFile is the file of a logical unit, in the target's folder.
func imageFile(iqn string, lun int) string { return serial(iqn, lun) + ".img" }
