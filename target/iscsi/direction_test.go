// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"testing"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// TestDirectionBits sends commands whose R and W bits are not those of the CDB: no
// R2T asks for data that the initiator has not announced, no data is sent that it does not
// take, and all of it is residual (RFC 7143 11.3.1, 11.4.5).
func TestDirectionBits(t *testing.T) {
	for _, c := range []struct {
		name        string
		write       bool // the CDB is a WRITE of one block, or else a READ
		r, w        bool
		expected    uint32
		over, under uint32
	}{
		{"READ", false, true, false, 512, 0, 0},
		{"READ, more expected", false, true, false, 1024, 0, 512},
		{"READ with W", false, false, true, 512, 512, 0},
		{"READ with neither", false, false, false, 512, 512, 0},
		{"WRITE with R", true, true, false, 512, 512, 0},
		{"WRITE with neither", true, false, false, 512, 512, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, Limits{InitialR2T: true}, Auth{})
			conn := r.raw()
			conn.login("ImmediateData=No", "InitialR2T=Yes")
			cmd := read10(7, 2, 0, 1)
			if c.write {
				cmd = write10(7, 2, 0, 1, 0)
			}
			cmd.Read, cmd.Write, cmd.Final, cmd.ExpectedDataTransferLength = c.r, c.w, true, c.expected
			conn.send(cmd, nil)
			p, data := conn.receive()
			var over, under bool
			var residual uint32
			switch p := p.(type) {
			case *pdu.DataIn:
				if !c.r || c.write || len(data) != 512 {
					t.Errorf("%d bytes of data", len(data))
				}
				over, under, residual = p.Overflow, p.Underflow, p.ResidualCount
			case *pdu.SCSIResponse:
				over, under, residual = p.Overflow, p.Underflow, p.ResidualCount
			default:
				t.Fatalf("it is answered %v", p)
			}
			if over != (c.over > 0) || under != (c.under > 0) || residual != c.over+c.under {
				t.Errorf("overflow %v, underflow %v, residual %d; want %d over, %d under", over, under, residual, c.over, c.under)
			}
		})
	}
}
