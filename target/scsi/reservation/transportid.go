// SPDX-License-Identifier: Apache-2.0

package reservation

import (
	"encoding/binary"
	"encoding/hex"
	"strings"

	"github.com/gotgtd/gotgtd/internal/iscsiname"
)

const (
	isidSeparator = ",i,0x"

	transportIDHeader = 4
	minTransportID    = 24
	// maxTransportID is the longest TransportID: the longest name, separator,
	// ISID in hexadecimal and NUL, padded to a multiple of four.
	maxTransportID = transportIDHeader + (iscsiname.MaxLen+len(isidSeparator)+12+1+3)/4*4

	protocolISCSI  = 0x05
	formatDevice   = 0x00 // format code 00b: "name"
	formatPort     = 0x40 // format code 01b: "name,i,0xISID"
	formatCodeMask = 0xc0
)

// transportID is an iSCSI TransportID (SPC-4 7.6.4.6): an initiator port, or
// an initiator device with every port that it has.
type transportID struct {
	name    string
	isid    [6]byte
	hasISID bool // format code 01b
}

// appendTransportID appends n's initiator port as a TransportID with format
// code 01b.
func appendTransportID(b []byte, n Nexus) []byte {
	text := n.InitiatorPort()
	length := max((len(text)+1+3)/4*4, minTransportID-transportIDHeader)
	b = append(b, formatPort|protocolISCSI, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	b = append(b, text...)
	return append(b, make([]byte, length-len(text))...)
}

// decodeTransportID decodes the TransportID that b begins with, which is at
// offset at of the parameter list, and returns its length in bytes.
func decodeTransportID(b []byte, at int) (transportID, int, *Sense) {
	var id transportID
	if len(b) < minTransportID {
		return id, 0, listLengthError()
	}
	additional := int(binary.BigEndian.Uint16(b[2:4]))
	length := transportIDHeader + additional
	switch {
	case b[0]&0x0f != protocolISCSI:
		return id, 0, invalidParameter(at)
	case length < minTransportID || additional%4 != 0:
		return id, 0, invalidParameter(at + 2)
	case length > len(b):
		return id, 0, listLengthError()
	}
	text, _, _ := strings.Cut(string(b[transportIDHeader:length]), "\x00")
	switch b[0] & formatCodeMask {
	case formatDevice:
		id.name = text
	case formatPort:
		name, isid, found := strings.Cut(text, isidSeparator)
		raw, err := hex.DecodeString(isid)
		if !found || err != nil || len(raw) != len(id.isid) {
			return id, 0, invalidParameter(at + transportIDHeader)
		}
		id.name, id.isid, id.hasISID = name, [6]byte(raw), true
	default:
		return id, 0, invalidParameter(at)
	}
	if iscsiname.Check(id.name) != nil {
		return id, 0, invalidParameter(at + transportIDHeader)
	}
	return id, length, nil
}

// initiatorPorts returns the initiator ports that id names, as nexuses with
// target port zero. Those of an initiator device are the ones with an open
// nexus; there may be none.
func (id transportID) initiatorPorts(open []Nexus) []Nexus {
	if id.hasISID {
		return []Nexus{{Initiator: id.name, ISID: id.isid}}
	}
	var ports []Nexus
	seen := make(map[Nexus]bool)
	for _, n := range open {
		if n = n.onPort(0); n.Initiator == id.name && !seen[n] {
			seen[n] = true
			ports = append(ports, n)
		}
	}
	return ports
}
