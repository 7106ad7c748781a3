// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/overlay"
)

// system does what tgt's own scripts do with all of tgtd: what is so already succeeds, and
// what a service manager or another command does is refused with its name.
func (c *tgtCommand) system(st *control.Status) error {
	why := func(s string) error { return fmt.Errorf("%w: %s", overlay.ErrInvalidRequest, s) }
	switch {
	case c.op == "delete" && len(st.Targets) > 0:
		return why("there are targets")
	case c.op == "delete", c.op == "stop":
		return why("gotgtd is stopped by its service manager: systemctl stop gotgtd")
	case c.op == "start":
		return nil // the driver runs
	}
	switch name, value := c.has['n'], strings.ToLower(c.has['v']); {
	case name == "State" && value == "ready", name == "debug" && value == "off", (name == "iSNS" || name == "iSNSAccessControl") && value == "off":
		return nil // so it is
	case name == "State" && value == "offline":
		return why("only targets go offline: tgt-admin --offline ALL")
	case name == "debug" && value == "on":
		return why("how much is logged is --log-level of gotgtd serve")
	case strings.HasPrefix(name, "iSNS"):
		return why("iSNS is not supported: initiators find targets by SendTargets discovery")
	}
	return why(fmt.Sprintf("there is no %s=%s", c.has['n'], c.has['v']))
}
