// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"context"
	"encoding/binary"
	"fmt"
)

// SCSI status codes (SAM-5 5.3.1).
const (
	StatusGood                = 0x00
	StatusCheckCondition      = 0x02
	StatusConditionMet        = 0x04
	StatusBusy                = 0x08
	StatusReservationConflict = 0x18
	StatusTaskSetFull         = 0x28
	StatusTaskAborted         = 0x40
)

// LUN returns the eight bytes of logical unit n, in the peripheral device
// format below 256 and in the flat format from there to 16383 (SAM-5 4.7.7).
func LUN(n uint16) uint64 {
	if n >= 256 {
		n = n&0x3fff | 0x4000
	}
	return uint64(n) << 48
}

// DecodeSense returns the sense key and the additional sense code with its
// qualifier (code<<8 | qualifier) of fixed or descriptor sense data (SPC-4 4.5).
// Sense data too short to say is 0, 0.
func DecodeSense(sense []byte) (key uint8, code uint16) {
	switch {
	case len(sense) >= 14 && sense[0]&0x7e == 0x70:
		return sense[2] & 0x0f, binary.BigEndian.Uint16(sense[12:])
	case len(sense) >= 4 && sense[0]&0x7e == 0x72:
		return sense[1] & 0x0f, binary.BigEndian.Uint16(sense[2:])
	}
	return 0, 0
}

// The flags of READ, WRITE and their relatives, byte 1 of the CDB (SBC-3 5.8).
const (
	FUA = 0x08
	DPO = 0x10
)

// set makes cmd a command of n bytes of data in buf.
func (cmd *Command) set(lun uint64, in, out []byte, cdb ...byte) *Command {
	cmd.LUN, cmd.In, cmd.Out, cmd.Length = lun, in, out, len(in)+len(out)
	cmd.CDB = [16]byte{}
	copy(cmd.CDB[:], cdb)
	return cmd
}

func (cmd *Command) transfer10(lba, blocks uint32) *Command {
	binary.BigEndian.PutUint32(cmd.CDB[2:], lba)
	binary.BigEndian.PutUint16(cmd.CDB[7:], uint16(blocks))
	return cmd
}

func (cmd *Command) transfer16(lba uint64, blocks uint32) *Command {
	binary.BigEndian.PutUint64(cmd.CDB[2:], lba)
	binary.BigEndian.PutUint32(cmd.CDB[10:], blocks)
	return cmd
}

// Read10 makes cmd a READ (10) of blocks that fill buf; flags are FUA and DPO.
// The builders return cmd and keep what they don't name.
func (cmd *Command) Read10(lun uint64, lba uint32, blocks uint16, buf []byte, flags byte) *Command {
	return cmd.set(lun, buf, nil, 0x28, flags).transfer10(lba, uint32(blocks))
}

// Write10 makes cmd a WRITE (10) of blocks from buf.
func (cmd *Command) Write10(lun uint64, lba uint32, blocks uint16, buf []byte, flags byte) *Command {
	return cmd.set(lun, nil, buf, 0x2a, flags).transfer10(lba, uint32(blocks))
}

// Read16 makes cmd a READ (16).
func (cmd *Command) Read16(lun, lba uint64, blocks uint32, buf []byte, flags byte) *Command {
	return cmd.set(lun, buf, nil, 0x88, flags).transfer16(lba, blocks)
}

// Write16 makes cmd a WRITE (16).
func (cmd *Command) Write16(lun, lba uint64, blocks uint32, buf []byte, flags byte) *Command {
	return cmd.set(lun, nil, buf, 0x8a, flags).transfer16(lba, blocks)
}

// Flush makes cmd a SYNCHRONIZE CACHE (10) of the whole unit (SBC-3 5.21).
func (cmd *Command) Flush(lun uint64) *Command { return cmd.set(lun, nil, nil, 0x35) }

// CompareAndWrite makes cmd a COMPARE AND WRITE (SBC-3 5.2); buf has the blocks to
// compare with, then those to write.
func (cmd *Command) CompareAndWrite(lun, lba uint64, blocks uint8, buf []byte) *Command {
	cmd.set(lun, nil, buf, 0x89).transfer16(lba, 0)
	cmd.CDB[10], cmd.CDB[13] = 0, blocks
	return cmd
}

// A Range is a run of blocks.
type Range struct {
	LBA    uint64
	Blocks uint32
}

// Unmap makes cmd an UNMAP of ranges (SBC-3 5.28).
func (cmd *Command) Unmap(lun uint64, ranges ...Range) *Command {
	list := make([]byte, 8, 8+16*len(ranges))
	for _, r := range ranges {
		list = binary.BigEndian.AppendUint64(list, r.LBA)
		list = binary.BigEndian.AppendUint32(list, r.Blocks)
		list = append(list, 0, 0, 0, 0)
	}
	binary.BigEndian.PutUint16(list, uint16(len(list)-2))
	binary.BigEndian.PutUint16(list[2:], uint16(len(list)-8))
	cmd.set(lun, nil, list, 0x42)
	binary.BigEndian.PutUint16(cmd.CDB[7:], uint16(len(list)))
	return cmd
}

// ReserveOut makes cmd a PERSISTENT RESERVE OUT with its basic parameter list
// (SPC-4 6.16): kind is the reservation type, flags byte 20 of the list
// (APTPL 0x01, ALL_TG_PT 0x04).
func (cmd *Command) ReserveOut(lun uint64, action, kind uint8, key, serviceKey uint64, flags uint8) *Command {
	list := make([]byte, 24)
	binary.BigEndian.PutUint64(list, key)
	binary.BigEndian.PutUint64(list[8:], serviceKey)
	list[20] = flags
	cmd.set(lun, nil, list, 0x5f, action&0x1f, kind&0x0f)
	binary.BigEndian.PutUint32(cmd.CDB[5:], uint32(len(list)))
	return cmd
}

// ReserveIn makes cmd a PERSISTENT RESERVE IN that fills at most buf (SPC-4 6.15).
func (cmd *Command) ReserveIn(lun uint64, action uint8, buf []byte) *Command {
	cmd.set(lun, buf, nil, 0x5e, action&0x1f)
	binary.BigEndian.PutUint16(cmd.CDB[7:], uint16(len(buf)))
	cmd.Length = 0
	return cmd
}

// TestUnitReady runs a TEST UNIT READY (SPC-4 6.47).
func (s *Session) TestUnitReady(ctx context.Context, lun uint64) error {
	return s.Do(ctx, new(Command).set(lun, nil, nil, 0x00))
}

// maxSettleAttentions bounds the unit attentions that Settle takes.
const maxSettleAttentions = 16

// Settle runs TEST UNIT READY until no unit attention is pending.
func (s *Session) Settle(ctx context.Context, lun uint64) error {
	var err error
	for range maxSettleAttentions {
		cmd := new(Command).set(lun, nil, nil, 0x00)
		if err = s.Do(ctx, cmd); err == nil {
			return nil
		}
		if key, _ := DecodeSense(cmd.Sense); key != 6 {
			return err
		}
	}
	return err
}

// Inquiry runs an INQUIRY (SPC-4 6.6) for standard data, or for a page of vital
// product data when vpd is set. It returns what came, at most length bytes.
func (s *Session) Inquiry(ctx context.Context, lun uint64, vpd bool, page uint8, length uint16) ([]byte, error) {
	evpd := byte(0)
	if vpd {
		evpd = 1
	}
	return s.fetch(ctx, new(Command).set(lun, make([]byte, length), nil, 0x12, evpd, page, byte(length>>8), byte(length)))
}

// fetch runs a command whose answer's length only the target knows.
func (s *Session) fetch(ctx context.Context, cmd *Command) ([]byte, error) {
	cmd.Length = 0
	if err := s.Do(ctx, cmd); err != nil {
		return nil, err
	}
	return cmd.In[:cmd.Received], nil
}

// ReportLUNs runs a REPORT LUNS (SPC-4 6.33) with room for 1,024 units and
// returns them as on the wire.
func (s *Session) ReportLUNs(ctx context.Context) ([]uint64, error) {
	const room = 8 + 8*1024
	cmd := new(Command).set(0, make([]byte, room), nil, 0xa0)
	binary.BigEndian.PutUint32(cmd.CDB[6:], room)
	data, err := s.fetch(ctx, cmd)
	if err != nil {
		return nil, err
	}
	if len(data) < 8 || int(binary.BigEndian.Uint32(data)) > len(data)-8 {
		return nil, fmt.Errorf("initiator: REPORT LUNS answered %d bytes that say they are more", len(data))
	}
	var luns []uint64
	for list := data[8 : 8+binary.BigEndian.Uint32(data)]; len(list) >= 8; list = list[8:] {
		luns = append(luns, binary.BigEndian.Uint64(list))
	}
	return luns, nil
}

// Capacity is the size of a logical unit.
type Capacity struct {
	Blocks    uint64
	BlockSize uint32 // bytes
}

// ReadCapacity runs a READ CAPACITY (16) (SBC-3 5.16).
func (s *Session) ReadCapacity(ctx context.Context, lun uint64) (Capacity, error) {
	cmd := new(Command).set(lun, make([]byte, 32), nil, 0x9e, 0x10)
	binary.BigEndian.PutUint32(cmd.CDB[10:], 32)
	data, err := s.fetch(ctx, cmd)
	if err != nil {
		return Capacity{}, err
	}
	if len(data) < 12 {
		return Capacity{}, fmt.Errorf("initiator: READ CAPACITY answered %d bytes", len(data))
	}
	return Capacity{Blocks: binary.BigEndian.Uint64(data) + 1, BlockSize: binary.BigEndian.Uint32(data[8:])}, nil
}
