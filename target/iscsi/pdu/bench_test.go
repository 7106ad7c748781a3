// SPDX-License-Identifier: Apache-2.0

package pdu_test

import (
	"testing"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// hotCalls are what each command and each data segment costs.
func hotCalls() map[string]func() {
	header := func(p pdu.PDU) *pdu.BHS {
		h := new(pdu.BHS)
		p.Encode(h)
		return h
	}
	var (
		h        pdu.BHS
		command  = header(&pdu.SCSICommand{Final: true, Read: true, LUN: 1 << 48, ExpectedDataTransferLength: 4096})
		dataOut  = header(&pdu.DataOut{Final: true, DataLength: 4096})
		segment  = make([]byte, 4096)
		trailing [pdu.DigestLen]byte
	)
	return map[string]func(){
		"decode SCSI Command": func() { new(pdu.SCSICommand).Decode(command) },
		"decode Data-Out":     func() { new(pdu.DataOut).Decode(dataOut) },
		"encode Data-In": func() {
			(&pdu.DataIn{Final: true, HasStatus: true, DataLength: 4096}).Encode(&h)
			h.PutSequence(pdu.Sequence{StatSN: 1, ExpCmdSN: 2, MaxCmdSN: 3})
		},
		"encode SCSI Response": func() {
			(&pdu.SCSIResponse{Response: pdu.CommandCompleted}).Encode(&h)
			h.PutSequence(pdu.Sequence{StatSN: 1, ExpCmdSN: 2, MaxCmdSN: 3})
		},
		"encode R2T":         func() { (&pdu.R2T{DesiredDataTransferLength: 1 << 18}).Encode(&h) },
		"digest of a header": func() { pdu.Digest(0).Add(h[:]).Put(trailing[:]) },
		"digest of 4 KiB":    func() { pdu.Digest(0).Add(segment).Put(trailing[:]) },
	}
}

func TestHotCallsAllocateNothing(t *testing.T) {
	for name, f := range hotCalls() {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkPDU(b *testing.B) {
	for name, f := range hotCalls() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
}
