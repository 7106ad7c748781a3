// SPDX-License-Identifier: Apache-2.0

package peer

import "fmt"

// IQN is the name of the target that tests serve unless it matters: that of the
// project's scenario.
const IQN = "iqn.2015-02.com.stu31:t1"

// Target is a running iSCSI target.
type Target interface {
	// Portals are the addresses, host:port, at which it serves.
	Portals() []string
	// PID is the process that serves.
	PID() int
	// Log is the end of what it has printed.
	Log() string
	// Stop ends it; an error if it did not end by itself and in order.
	Stop() error
}

// Options say what a target serves and where.
type Options struct {
	// Config is the text of a targets.conf: both tgt and this project's target
	// understand it, so one test can be tried on both.
	Config string
	// YAML is the text of a configuration in place of Config, for what only this
	// project's target has.
	YAML string
	// Dir is an existing folder for the target's files.
	Dir string
	// Address, host:port, is the portal of a tgt; empty means free loopback ports.
	Address string
	// Portals is how many loopback portals it has; zero means one.
	Portals int
	// OwnPortals leaves the portals to YAML, which says where they are.
	OwnPortals bool
	// Env are variables, NAME=VALUE, that gotgtd gets beside this process's.
	Env []string
}

// OneDisk is a targets.conf in which path is LUN 1 of [IQN], with more directives
// inside the LUN's block.
func OneDisk(path, directives string) string {
	return fmt.Sprintf("<target %s>\n<backing-store %s>\n%s\n</backing-store>\n</target>\n", IQN, path, directives)
}

// URL is what libiscsi and QEMU call a logical unit of a target at a portal.
func URL(portal, target string, lun int) string {
	return fmt.Sprintf("iscsi://%s/%s/%d", portal, target, lun)
}
