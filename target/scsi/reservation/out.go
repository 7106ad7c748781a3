// SPDX-License-Identifier: Apache-2.0

package reservation

import "encoding/binary"

// The service actions of PERSISTENT RESERVE OUT (SPC-4 6.16.2). REPLACE LOST
// RESERVATION is not among them: state that was lost is an error in [New], so
// it could never be of use, and REPORT CAPABILITIES says so with RLR_C zero.
const (
	actionRegister          = 0x00
	actionReserve           = 0x01
	actionRelease           = 0x02
	actionClear             = 0x03
	actionPreempt           = 0x04
	actionPreemptAndAbort   = 0x05
	actionRegisterAndIgnore = 0x06
	actionRegisterAndMove   = 0x07
)

const (
	basicListLength = 24 // also the fixed part of REGISTER AND MOVE's list

	flagSpecPorts = 0x08 // SPEC_I_PT, byte 20
	flagAllPorts  = 0x04 // ALL_TG_PT, byte 20
	flagAPTPL     = 0x01 // byte 20, or 17 of REGISTER AND MOVE

	flagUnregister = 0x02 // UNREG, byte 17 of REGISTER AND MOVE
)

// request is a PERSISTENT RESERVE OUT command whose form is right.
type request struct {
	action     uint8
	scope      uint8
	typ        Type   // not checked: only some actions look at it
	key        uint64 // RESERVATION KEY
	newKey     uint64 // SERVICE ACTION RESERVATION KEY
	aptpl      bool
	allPorts   bool
	specPorts  bool
	unregister bool
	port       uint16        // of REGISTER AND MOVE
	ids        []transportID // of SPEC_I_PT, or the one of REGISTER AND MOVE
}

// decodeOut decodes the CDB and the parameter list, and finds what is wrong
// with them whatever the state is.
func decodeOut(cdb, params []byte, aptplCapable bool) (request, *Sense) {
	r := request{
		action: cdb[1] & 0x1f,
		scope:  cdb[2] >> 4,
		typ:    Type(cdb[2] & 0x0f),
	}
	if r.action > actionRegisterAndMove {
		return r, invalidCDB(1)
	}
	length := int64(binary.BigEndian.Uint32(cdb[5:9]))
	if length < basicListLength || length > int64(MaxParameterList) || length > int64(len(params)) {
		return r, listLengthError()
	}
	params = params[:length]
	r.key = binary.BigEndian.Uint64(params)
	r.newKey = binary.BigEndian.Uint64(params[8:])
	if r.action == actionRegisterAndMove {
		return r, r.decodeMove(params, aptplCapable)
	}
	return r, r.decodeBasic(params, aptplCapable)
}

// decodeBasic decodes the parameter list of every action but REGISTER AND MOVE
// (SPC-4 6.16.3).
func (r *request) decodeBasic(params []byte, aptplCapable bool) *Sense {
	flags := params[20]
	registering := r.action == actionRegister || r.action == actionRegisterAndIgnore
	r.specPorts = flags&flagSpecPorts != 0
	// Both bits are ignored, not refused, with the other actions.
	r.allPorts = registering && flags&flagAllPorts != 0
	r.aptpl = registering && flags&flagAPTPL != 0
	switch {
	case r.specPorts && r.action != actionRegister:
		return invalidParameter(20)
	case r.aptpl && !aptplCapable:
		return invalidParameter(20)
	case r.specPorts:
		return r.decodePorts(params)
	case len(params) != basicListLength:
		return listLengthError()
	}
	return nil
}

// decodePorts decodes the TransportIDs that SPEC_I_PT announces.
func (r *request) decodePorts(params []byte) *Sense {
	const start = basicListLength + 4
	if len(params) < start {
		return listLengthError()
	}
	length := int64(binary.BigEndian.Uint32(params[basicListLength:]))
	if length > int64(len(params)-start) {
		return listLengthError()
	}
	for at, end := start, start+int(length); at < end; {
		id, n, sense := decodeTransportID(params[at:end], at)
		if sense != nil {
			return sense
		}
		r.ids = append(r.ids, id)
		at += n
	}
	return nil
}

// decodeMove decodes the parameter list of REGISTER AND MOVE (SPC-4 6.16.4).
func (r *request) decodeMove(params []byte, aptplCapable bool) *Sense {
	r.aptpl = params[17]&flagAPTPL != 0
	r.unregister = params[17]&flagUnregister != 0
	r.port = binary.BigEndian.Uint16(params[18:])
	length := int64(binary.BigEndian.Uint32(params[20:]))
	switch {
	case r.aptpl && !aptplCapable:
		return invalidParameter(17)
	case length > int64(len(params)-basicListLength):
		return listLengthError()
	}
	id, n, sense := decodeTransportID(params[basicListLength:basicListLength+length], basicListLength)
	if sense != nil {
		return sense
	}
	if n != int(length) {
		return invalidParameter(20)
	}
	r.ids = []transportID{id}
	return nil
}

// surroundings is what a request needs to know of the target and t does not
// hold: the target ports, the one that the command came through first, and the
// nexuses that are open.
type surroundings struct {
	ports []uint16
	open  []Nexus
}

// apply carries out r, sent by n, on t. If the Result is not GOOD then t may
// be half changed and is of no more use.
func (t *table) apply(n Nexus, r *request, s surroundings) Result {
	switch r.action {
	case actionRegister, actionRegisterAndIgnore:
		return t.register(n, r, s)
	}
	// SPC-4 5.13.7: whoever is not registered can't do anything else, and the
	// key is verified whatever the action is.
	if i := t.find(n); i < 0 || t.regs[i].Key != r.key {
		return conflict
	}
	switch r.action {
	case actionReserve:
		return t.reserve(n, r)
	case actionRelease:
		return t.releaseBy(n, r)
	case actionClear:
		return t.clear(n)
	case actionPreempt, actionPreemptAndAbort:
		return t.preempt(n, r)
	default:
		return t.move(n, r, s)
	}
}
