// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"net/netip"
	"time"
)

func (c *conn) origin() netip.Prefix { return origin(c.remote.Addr()) }

// pingState is what the liveness loop remembers of a connection.
type pingState struct {
	heard uint32    // PDUs received when last looked at
	since time.Time // when that last changed
	sent  bool      // a NOP-In is unanswered since
}
