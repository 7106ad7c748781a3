// SPDX-License-Identifier: Apache-2.0

package power

import (
	"encoding/binary"

	"github.com/gotgtd/gotgtd/internal/initiator"
)

// cdb16 makes a command with a CDB in the layout of WRITE (16) (SBC-3 5.27).
func cdb16(lun uint16, code, flags byte, lba, blocks int, out []byte) *initiator.Command {
	cmd := &initiator.Command{LUN: initiator.LUN(lun), Out: out}
	cmd.CDB[0], cmd.CDB[1] = code, flags
	binary.BigEndian.PutUint64(cmd.CDB[2:], uint64(lba))
	binary.BigEndian.PutUint32(cmd.CDB[10:], uint32(blocks))
	return cmd
}

// cdb10 makes a command with a CDB in the layout of WRITE (10) (SBC-3 5.25).
func cdb10(lun uint16, code, flags byte, lba, blocks int, out []byte) *initiator.Command {
	cmd := &initiator.Command{LUN: initiator.LUN(lun), Out: out}
	cmd.CDB[0], cmd.CDB[1] = code, flags
	binary.BigEndian.PutUint32(cmd.CDB[2:], uint32(lba))
	binary.BigEndian.PutUint16(cmd.CDB[7:], uint16(blocks))
	return cmd
}

// Operation codes (SBC-3 5.1).
const (
	codeSynchronize10  = 0x35
	codeSynchronize16  = 0x91
	codeWrite10        = 0x2a
	codeWrite16        = 0x8a
	codeWriteVerify10  = 0x2e
	codeWriteVerify16  = 0x8e
	codeWriteSame10    = 0x41
	codeWriteSame16    = 0x93
	codeOrWrite        = 0x8b
	codeModeSelect6    = 0x15
	flagUnmap          = 0x08 // of WRITE SAME
	senseUnitAttention = 6
	senseMiscompare    = 0xe
)

// compareAndWrite makes a COMPARE AND WRITE (SBC-3 5.2); out has what to compare with, then what
// to write.
func compareAndWrite(lun uint16, flags byte, lba, blocks int, out []byte) *initiator.Command {
	cmd := new(initiator.Command).CompareAndWrite(initiator.LUN(lun), uint64(lba), uint8(blocks), out)
	cmd.CDB[1] = flags
	return cmd
}

// selectCache makes a MODE SELECT (6) that turns the write cache on or off: the Caching mode
// page (SBC-3 6.5.5), which has to be the present one but for WCE.
func selectCache(lun uint16, page []byte, on bool) *initiator.Command {
	list := append(make([]byte, 4), page...)
	list[4] &= 0x3f // PS is reserved
	list[6] &^= 0x04
	if on {
		list[6] |= 0x04
	}
	cmd := &initiator.Command{LUN: initiator.LUN(lun), Out: list}
	cmd.CDB[0], cmd.CDB[1], cmd.CDB[4] = codeModeSelect6, 0x10, byte(len(list))
	return cmd
}

// readCapacity makes a READ CAPACITY (16) (SBC-3 5.16).
func readCapacity(lun uint16, in []byte) *initiator.Command {
	cmd := &initiator.Command{LUN: initiator.LUN(lun), In: in}
	cmd.CDB[0], cmd.CDB[1], cmd.CDB[13] = 0x9e, 0x10, byte(len(in))
	return cmd
}

// senseCache makes a MODE SENSE (6) for the Caching mode page, without block descriptors.
func senseCache(lun uint16, in []byte) *initiator.Command {
	cmd := &initiator.Command{LUN: initiator.LUN(lun), In: in}
	cmd.CDB[0], cmd.CDB[1], cmd.CDB[2], cmd.CDB[4] = 0x1a, 0x08, 0x08, byte(len(in))
	return cmd
}
