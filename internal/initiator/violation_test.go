// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// A reaction answers one command; it may change the response, which is right
// but for that.
type reaction struct {
	want   string
	in     int // bytes that the command reads
	out    int // bytes that it writes
	answer func(f *fake, cmd *pdu.SCSICommand) error
}

// good answers with a response that change may spoil.
func good(change func(p *pdu.SCSIResponse), data []byte, corrupt func(*pdu.BHS)) func(*fake, *pdu.SCSICommand) error {
	return func(f *fake, cmd *pdu.SCSICommand) error {
		p := &pdu.SCSIResponse{InitiatorTaskTag: cmd.InitiatorTaskTag, Sequence: f.status()}
		if change != nil {
			change(p)
		}
		return f.write(p, data, corrupt)
	}
}

// read answers a read of 1,024 bytes in two Data-In PDUs with status, either of
// which change may spoil.
func read(change func(i int, p *pdu.DataIn)) func(*fake, *pdu.SCSICommand) error {
	return func(f *fake, cmd *pdu.SCSICommand) error {
		for i := range 2 {
			p := &pdu.DataIn{InitiatorTaskTag: cmd.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag, DataLength: 512,
				Sequence: f.seq, DataSN: uint32(i), BufferOffset: uint32(i * 512), Final: i == 1, HasStatus: i == 1}
			p.StatSN = 0
			if p.HasStatus {
				p.Sequence = f.status()
			}
			change(i, p)
			if err := f.write(p, make([]byte, p.DataLength), nil); err != nil {
				return err
			}
		}
		return nil
	}
}

// ask answers a write with an R2T that change may spoil.
func ask(change func(p *pdu.R2T)) func(*fake, *pdu.SCSICommand) error {
	return func(f *fake, cmd *pdu.SCSICommand) error {
		p := &pdu.R2T{LUN: cmd.LUN, InitiatorTaskTag: cmd.InitiatorTaskTag, TargetTransferTag: 7, Sequence: f.seq, BufferOffset: 512, DesiredDataTransferLength: 512}
		change(p)
		return f.write(p, nil, nil)
	}
}

// other answers with something that change makes of a PDU of another kind.
func other(make func(f *fake, cmd *pdu.SCSICommand) pdu.PDU, data []byte) func(*fake, *pdu.SCSICommand) error {
	return func(f *fake, cmd *pdu.SCSICommand) error { return f.write(make(f, cmd), data, nil) }
}

func at(n int, change func(p *pdu.DataIn)) func(int, *pdu.DataIn) {
	return func(i int, p *pdu.DataIn) {
		if i == n {
			change(p)
		}
	}
}

var violations = []reaction{
	// What all PDUs have in common.
	{want: "StatSN 101, want 102", answer: good(func(p *pdu.SCSIResponse) { p.StatSN-- }, nil, nil)},
	{want: "ExpCmdSN went back", answer: good(func(p *pdu.SCSIResponse) { p.ExpCmdSN -= 2 }, nil, nil)},
	{want: "MaxCmdSN went back", answer: good(func(p *pdu.SCSIResponse) { p.MaxCmdSN -= 2 }, nil, nil)},
	{want: "before ExpCmdSN-1", answer: good(func(p *pdu.SCSIResponse) { p.MaxCmdSN = p.ExpCmdSN - 2 }, nil, nil)},
	{want: "has yet to be sent", answer: good(func(p *pdu.SCSIResponse) { p.ExpCmdSN += 1; p.MaxCmdSN++ }, nil, nil)},
	{want: "does not acknowledge", answer: good(func(p *pdu.SCSIResponse) { p.ExpCmdSN--; p.MaxCmdSN-- }, nil, nil)},
	{want: "no command with tag", answer: good(func(p *pdu.SCSIResponse) { p.InitiatorTaskTag++ }, nil, nil)},
	{want: "reserved field", answer: good(nil, nil, func(h *pdu.BHS) { h[1] |= 1 })},
	{want: "fixed bit missing", answer: good(nil, nil, func(h *pdu.BHS) { h[1] &^= 0x80 })},
	{want: "additional header segment", answer: good(nil, nil, func(h *pdu.BHS) { h[4] = 1 })},
	{want: "no target's", answer: good(nil, nil, func(h *pdu.BHS) { h[0] = 0x2b })},
	{want: "no target's", answer: good(nil, nil, func(h *pdu.BHS) { h[0] = 0x05 })},
	{want: "login response", answer: good(nil, nil, func(h *pdu.BHS) { h[0] = 0x23 })},
	{want: "padding", answer: func(f *fake, cmd *pdu.SCSICommand) error {
		raw := (&Wire{}).encode(nil, &pdu.SCSIResponse{Status: 2, InitiatorTaskTag: cmd.InitiatorTaskTag, Sequence: f.status()}, []byte{0, 3, 0x70, 0, 6}, Fault{})
		raw[len(raw)-1] = 1
		_, err := f.conn.Write(raw)
		return err
	}},
	// SCSI Response.
	{want: "bidirectional residual", answer: good(func(p *pdu.SCSIResponse) { p.BidiResidual = 1 }, nil, nil)},
	{want: "SNACK tag", answer: good(func(p *pdu.SCSIResponse) { p.SNACKTag = 1 }, nil, nil)},
	{want: "did not complete", answer: good(func(p *pdu.SCSIResponse) { p.Response = pdu.TargetFailure; p.Status = 2 }, nil, nil)},
	{want: "ExpDataSN 1", answer: good(func(p *pdu.SCSIResponse) { p.ExpDataSN = 1 }, nil, nil)},
	{want: "no sense data", answer: good(nil, []byte{0, 1, 0x70}, nil)},
	{want: "without sense data", answer: good(func(p *pdu.SCSIResponse) { p.Status = 2 }, nil, nil)},
	{want: "sense length 9", answer: good(func(p *pdu.SCSIResponse) { p.Status = 2 }, []byte{0, 9, 0x70}, nil)},
	{want: "response code 0x60", answer: good(func(p *pdu.SCSIResponse) { p.Status = 2 }, []byte{0, 1, 0x60}, nil)},
	// Residuals.
	{want: "overflow and underflow", in: 1024, answer: good(func(p *pdu.SCSIResponse) { p.Overflow, p.Underflow, p.ResidualCount = true, true, 4 }, nil, nil)},
	{want: "does not go with", answer: good(func(p *pdu.SCSIResponse) { p.ResidualCount = 4 }, nil, nil)},
	{want: "does not go with", in: 1024, answer: good(func(p *pdu.SCSIResponse) { p.Underflow = true }, nil, nil)},
	{want: "residual 2000 of 1024", in: 1024, answer: good(func(p *pdu.SCSIResponse) { p.Underflow, p.ResidualCount = true, 2000 }, nil, nil)},
	{want: "0 bytes came, the residual says 1024", in: 1024, answer: good(nil, nil, nil)},
	{want: "residual of a command that moves 1024", in: 1024, answer: good(func(p *pdu.SCSIResponse) { p.Underflow, p.ResidualCount = true, 1024 }, nil, nil)},
	{want: "1024 bytes taken, only 512 were sent", out: 1024, answer: good(nil, nil, nil)},
	// Data-In.
	{want: "DataSN 2, want 1", in: 1024, answer: read(at(1, func(p *pdu.DataIn) { p.DataSN = 2 }))},
	{want: "buffer offset 0, want 512", in: 1024, answer: read(at(1, func(p *pdu.DataIn) { p.BufferOffset = 0 }))},
	{want: "past the expected", in: 1024, answer: read(at(1, func(p *pdu.DataIn) { p.DataLength = 513 }))},
	{want: "past the expected", answer: read(at(0, func(*pdu.DataIn) {}))},
	{want: "A bit", in: 1024, answer: read(at(0, func(p *pdu.DataIn) { p.Acknowledge = true }))},
	{want: "transfer tag without A bit", in: 1024, answer: read(at(0, func(p *pdu.DataIn) { p.TargetTransferTag = 3 }))},
	{want: "LUN of another", in: 1024, answer: read(at(0, func(p *pdu.DataIn) { p.LUN = 9 << 48 }))},
	{want: "longer than MaxBurstLength", in: 8192, answer: read(func(i int, p *pdu.DataIn) {
		p.DataLength, p.BufferOffset = 4096*uint32(1-i)+8*uint32(i), uint32(i*4096)
	})},
	{want: "S bit without F bit", in: 1024, answer: read(at(1, func(p *pdu.DataIn) { p.Final = false }))},
	{want: "status 0x02 in a Data-In", in: 1024, answer: read(at(1, func(p *pdu.DataIn) { p.Status = 2 }))},
	{want: "without S bit", in: 1024, answer: read(at(0, func(p *pdu.DataIn) { p.ResidualCount = 1 }))},
	{want: "where it is reserved", in: 1024, answer: read(at(0, func(p *pdu.DataIn) { p.StatSN = 103 }))},
	{want: "neither data nor status", in: 1024, answer: read(at(0, func(p *pdu.DataIn) { p.DataLength = 0 }))},
	{want: "the last Data-In had no F bit", in: 1024, answer: func(f *fake, cmd *pdu.SCSICommand) error {
		if err := read(at(1, func(p *pdu.DataIn) { f.seq.StatSN--; p.HasStatus, p.Final, p.StatSN = false, false, 0 }))(f, cmd); err != nil {
			return err
		}
		return good(func(p *pdu.SCSIResponse) { p.ExpDataSN = 2 }, nil, nil)(f, cmd)
	}},
	{want: "data segment of 300000", in: 1024, answer: good(nil, nil, func(h *pdu.BHS) { setDataLength(h, 300000) })},
	// R2T. The fake's session sends 512 bytes without being asked.
	{want: "R2TSN 1", out: 1024, answer: ask(func(p *pdu.R2T) { p.R2TSN = 1 })},
	{want: "reserved target transfer tag", out: 1024, answer: ask(func(p *pdu.R2T) { p.TargetTransferTag = pdu.ReservedTag })},
	{want: "LUN of another", out: 1024, answer: ask(func(p *pdu.R2T) { p.LUN = 0 })},
	{want: "buffer offset 0, want 512", out: 1024, answer: ask(func(p *pdu.R2T) { p.BufferOffset = 0 })},
	{want: "513 bytes asked for, 512 are left", out: 1024, answer: ask(func(p *pdu.R2T) { p.DesiredDataTransferLength = 513 })},
	{want: "0 bytes asked for", out: 1024, answer: ask(func(p *pdu.R2T) { p.DesiredDataTransferLength = 0 })},
	{want: "more than MaxBurstLength", out: 8192, answer: ask(func(p *pdu.R2T) { p.DesiredDataTransferLength = 4100 })},
	{want: "StatSN 101, want 102", out: 1024, answer: ask(func(p *pdu.R2T) { p.StatSN-- })},
	{want: "bytes asked for, 0 are left", answer: ask(func(p *pdu.R2T) { p.BufferOffset = 0 })},
	// The rest.
	{want: "no request with tag", answer: other(func(f *fake, cmd *pdu.SCSICommand) pdu.PDU {
		return &pdu.TaskManagementResponse{InitiatorTaskTag: cmd.InitiatorTaskTag, Sequence: f.status()}
	}, nil)},
	{want: "no request with tag", answer: other(func(f *fake, cmd *pdu.SCSICommand) pdu.PDU {
		return &pdu.NOPIn{InitiatorTaskTag: cmd.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag, Sequence: f.status()}
	}, nil)},
	{want: "data in a NOP-In", answer: other(func(f *fake, _ *pdu.SCSICommand) pdu.PDU {
		return &pdu.NOPIn{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: 5, Sequence: f.seq}
	}, []byte("x"))},
	{want: "LUN in a NOP-In", answer: other(func(f *fake, _ *pdu.SCSICommand) pdu.PDU {
		return &pdu.NOPIn{LUN: 1, InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: pdu.ReservedTag, Sequence: f.seq}
	}, nil)},
	{want: "a Reject with 4 bytes", answer: other(func(f *fake, _ *pdu.SCSICommand) pdu.PDU {
		return &pdu.Reject{Reason: pdu.ProtocolError, Sequence: f.status()}
	}, make([]byte, 4))},
	{want: "fast abort", answer: other(func(f *fake, _ *pdu.SCSICommand) pdu.PDU {
		return &pdu.AsyncMessage{Event: pdu.AsyncTasksTerminated, Sequence: f.status()}
	}, nil)},
	{want: "undefined event 77", answer: other(func(f *fake, _ *pdu.SCSICommand) pdu.PDU { return &pdu.AsyncMessage{Event: 77, Sequence: f.status()} }, nil)},
	{want: "SCSI event without sense", answer: other(func(f *fake, _ *pdu.SCSICommand) pdu.PDU { return &pdu.AsyncMessage{Sequence: f.status()} }, nil)},
}

// Whatever the target does wrong ends the session for the right reason.
func TestViolations(t *testing.T) {
	for i, c := range violations {
		t.Run(fmt.Sprintf("%d %s", i, c.want), func(t *testing.T) {
			s, err := fakeDial(t, newFake(t, nil, func(f *fake) error {
				p, _, err := f.read()
				if err == nil {
					err = c.answer(f, p.(*pdu.SCSICommand))
				}
				for err == nil {
					_, _, err = f.read()
				}
				return err
			}))
			if err != nil {
				t.Fatal(err)
			}
			cmd := new(Command).set(LUN(1), make([]byte, c.in), make([]byte, c.out), 0x28)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			wantViolation(t, s.Do(ctx, cmd), c.want)
			wantViolation(t, s.Close(), c.want)
		})
	}
}

// The same reactions, unspoiled, are no violations.
func TestRightReactions(t *testing.T) {
	for i, c := range []reaction{
		{answer: good(nil, nil, nil)},
		{in: 1024, answer: read(func(int, *pdu.DataIn) {})},
		{in: 2048, answer: read(at(1, func(p *pdu.DataIn) { p.Underflow, p.ResidualCount = true, 1024 }))},
		{out: 1024, answer: func(f *fake, cmd *pdu.SCSICommand) error {
			if err := ask(func(*pdu.R2T) {})(f, cmd); err != nil {
				return err
			}
			for final, offset := 0, 0; final < 2; {
				p, data, err := f.read()
				if err != nil {
					return err
				}
				d := p.(*pdu.DataOut)
				if int(d.BufferOffset) != offset {
					return fmt.Errorf("offset %d: %s", offset, p)
				}
				if offset += len(data); d.Final {
					final++
				}
			}
			return good(func(p *pdu.SCSIResponse) { p.ExpDataSN = 1 }, nil, nil)(f, cmd)
		}},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			s, err := fakeDial(t, newFake(t, nil, func(f *fake) error {
				p, _, err := f.read()
				if err != nil {
					return err
				}
				return c.answer(f, p.(*pdu.SCSICommand))
			}))
			if err != nil {
				t.Fatal(err)
			}
			cmd := new(Command).set(LUN(1), make([]byte, c.in), make([]byte, c.out), 0x28)
			cmd.Length = min(cmd.Length, 1024)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := s.Do(ctx, cmd); err != nil {
				t.Error(err)
			}
			var v *Violation
			if err := s.Close(); errors.As(err, &v) {
				t.Error(err)
			}
		})
	}
}
