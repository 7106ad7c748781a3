// SPDX-License-Identifier: Apache-2.0

//go:build plantedfault

package iscsi

import "github.com/gotgtd/gotgtd/target/iscsi/pdu"

// plantedFault trusts what an initiator says about where its data belongs.
func plantedFault(t *task, p *pdu.DataOut) {
	if t.buf != nil {
		_ = t.buf.B[p.BufferOffset:]
	}
}
