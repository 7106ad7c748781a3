// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/mem"
)

// handleNOPOut answers a NOP-Out (RFC 7143 11.18), unless it is itself the
// answer to a NOP-In of ours.
func (c *transport) handleNOPOut(h *pdu.BHS, data []byte) {
	var req pdu.NOPOut
	req.Decode(h)
	if req.InitiatorTaskTag == pdu.ReservedTag {
		return
	}
	data = data[:min(len(data), c.agreed.SendLimit)]
	var b *mem.Buffer
	if len(data) > 0 {
		if b = c.pool.TryGet(len(data)); b == nil {
			c.reject(pdu.LongOperationReject, h)
			return
		}
		copy(b.B, data)
	}
	c.out.SendData(header(&pdu.NOPIn{
		DataLength: uint32(len(data)), LUN: req.LUN,
		InitiatorTaskTag: req.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag,
	}), true, b)
}
