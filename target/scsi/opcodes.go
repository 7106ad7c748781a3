// SPDX-License-Identifier: Apache-2.0

package scsi

import "github.com/gotgtd/gotgtd/target/scsi/reservation"

// Operation flags.
const (
	opIgnoresAttention = 1 << iota // executes although a unit attention is pending (SAM-5 5.14)
	opController                   // a controller has it too
	opNeedsMedium                  // NOT READY when there is no medium
	opWrites                       // changes the medium: refused when write-protected
	opMedium                       // holds the medium lock shared while it executes
	opAlone                        // holds the medium lock alone while it executes
	opStore                        // needs the store open while it executes, and no block kept still
	opThin                         // there only if the logical unit is thin provisioned
	opLong                         // see Command.Long
	opOnce                         // can't be executed again once it has begun: see Command.Repeatable
	opEases                        // may do what an SPC reservation lets pass: see accessOf
)

// opBlocks is what commands that read blocks have in common, opChanges the
// same for those that write them.
const (
	opBlocks  = opNeedsMedium | opMedium
	opChanges = opNeedsMedium | opMedium | opWrites
)

// noAction marks an operation code without service actions.
const noAction = -1

// controlNACA is the NACA bit of the CONTROL byte (SAM-5 5.2), not supported.
const controlNACA = 0x04

// An operation is one operation code, with a service action where the code
// has them.
type operation struct {
	code   byte
	action int
	flags  uint32
	access reservation.Access

	// usage is the CDB usage data of REPORT SUPPORTED OPERATION CODES (SPC-4
	// 6.35.3) behind the operation code and without the CONTROL byte: the
	// bits that the device server looks at. Its length gives the CDB's.
	usage string

	prepare func(c *Command)      // validates; fails the command or sets Direction and Length
	run     func(c *Command)      // executes; may block
	try     func(c *Command) bool // executes if that can't block; nil: always use run
}

// cdbLength returns the length of the CDB in bytes.
func cdbLength(code byte) int {
	switch code >> 5 {
	case 0:
		return 6
	case 1, 2:
		return 10
	case 4:
		return 16
	}
	return 12
}

// controlByte returns the index of the CONTROL byte.
func (op *operation) controlByte() int { return cdbLength(op.code) - 1 }

// opcodeSet finds operations by operation code and service action.
type opcodeSet struct {
	list   []*operation
	byCode [256][]*operation
}

// operations is the set of all that this device server supports. It is built
// by init, since REPORT SUPPORTED OPERATION CODES, a member, reads it.
var operations opcodeSet

func init() {
	for _, group := range [][]operation{
		primaryOperations(), unitOperations(), modeOperations(), reportOperations(), reservationOperations(),
		blockOperations(), verifyOperations(), atomicOperations(), provisioningOperations(),
	} {
		for _, op := range group {
			operations.list = append(operations.list, &op)
			operations.byCode[op.code] = append(operations.byCode[op.code], &op)
		}
	}
}

// findOperation returns the operation that a CDB asks for, or nil and why it
// is not there.
func (lu *LogicalUnit) findOperation(cdb *[16]byte) (*operation, sense) {
	s := illegal(ascInvalidOpcode)
	for _, op := range operations.byCode[cdb[0]] {
		switch {
		case !lu.supports(op):
		case op.action == noAction || op.action == int(cdb[1]&0x1f):
			return op, sense{}
		default:
			s = badCDBBit(1, 4)
		}
	}
	return nil, s
}

// supports reports whether the logical unit has the operation.
func (lu *LogicalUnit) supports(op *operation) bool {
	if lu.omits(op.code, op.action) {
		return false
	}
	if lu.controller {
		return op.flags&opController != 0
	}
	return op.flags&opThin == 0 || lu.can.Discarder != nil
}

// omits reports whether an operation was left out by the options.
func (lu *LogicalUnit) omits(code byte, action int) bool {
	return lu.opts.Omit != nil && lu.opts.Omit(code, action)
}

// accessOf returns what the command does as far as reservations care. START
// STOP UNIT that starts, and PREVENT ALLOW MEDIUM REMOVAL that allows, pass
// where others would not (SPC-4 5.13.1).
func (op *operation) accessOf(cdb *[16]byte) reservation.Access {
	if op.flags&opEases != 0 {
		switch {
		case op.code == opStartStop && cdb[4]&(powerCondition|startStart) == startStart,
			op.code == opPreventAllow && cdb[4]&0x03 == 0:
			return reservation.Probe
		}
	}
	return op.access
}

// quick makes an operation that never blocks out of its run function.
func quick(run func(c *Command)) func(c *Command) bool {
	return func(c *Command) bool {
		run(c)
		return true
	}
}
