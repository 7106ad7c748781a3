// SPDX-License-Identifier: Apache-2.0

package login

import (
	"slices"
	"strconv"
	"strings"
)

// DefaultSegment is MaxRecvDataSegmentLength before it is declared, and
// what holds during login (RFC 7143 13.12), bytes.
const DefaultSegment = 8192

// Params are the negotiated values of a session (RFC 7143 13).
type Params struct {
	MaxBurstLength     uint32 `cbor:"1,keyasint" json:"max_burst_length"`   // bytes
	FirstBurstLength   uint32 `cbor:"2,keyasint" json:"first_burst_length"` // bytes
	MaxConnections     uint16 `cbor:"3,keyasint" json:"max_connections"`
	MaxOutstandingR2T  uint16 `cbor:"4,keyasint" json:"max_outstanding_r2t"`
	InitialR2T         bool   `cbor:"5,keyasint" json:"initial_r2t"`
	ImmediateData      bool   `cbor:"6,keyasint" json:"immediate_data"`
	DefaultTime2Wait   uint16 `cbor:"7,keyasint" json:"default_time2wait"`   // seconds
	DefaultTime2Retain uint16 `cbor:"8,keyasint" json:"default_time2retain"` // seconds
	QueueDepth         int    `cbor:"9,keyasint" json:"queue_depth"`         // not negotiated: the most commands in the window
}

// rfcDefaults are the values of keys that nobody mentions.
func rfcDefaults() Params {
	return Params{
		MaxBurstLength: 262144, FirstBurstLength: 65536, MaxConnections: 1, MaxOutstandingR2T: 1,
		InitialR2T: true, ImmediateData: true, DefaultTime2Wait: 2, DefaultTime2Retain: 20,
		QueueDepth: defaultQueueDepth,
	}
}

// negotiation is the operational negotiation of one login as the target sees
// it. It is plain data: a login can move to another process in the middle.
type negotiation struct {
	Params       Params   `cbor:"1,keyasint"`
	HeaderDigest bool     `cbor:"2,keyasint"`
	DataDigest   bool     `cbor:"3,keyasint"`
	SendLimit    uint32   `cbor:"4,keyasint"` // the initiator's MaxRecvDataSegmentLength, 0 until declared
	Seen         []string `cbor:"5,keyasint"` // keys negotiated so far: none may come twice (RFC 7143 6.2)
	Declared     bool     `cbor:"6,keyasint"` // our MaxRecvDataSegmentLength has been sent
}

// Answers that are not values (RFC 7143 6.2).
const (
	valueReject        = "Reject"
	valueIrrelevant    = "Irrelevant"
	valueNotUnderstood = "NotUnderstood"
)

// once notes a key and reports whether it is the first time.
func (n *negotiation) once(key string) bool {
	if slices.Contains(n.Seen, key) {
		return false
	}
	n.Seen = append(n.Seen, key)
	return true
}

// operational negotiates one key (RFC 7143 13). leading says that this is
// the first connection of a session and normal that the session is no discovery session. It
// returns the answer; answered is false for a declaration, which has none.
func (n *negotiation) operational(key, value string, l *Limits, leading, normal bool) (answer string, answered bool) {
	p := &n.Params
	switch key {
	case "HeaderDigest":
		return n.digest(value, l.HeaderDigest, &n.HeaderDigest), true
	case "DataDigest":
		return n.digest(value, l.DataDigest, &n.DataDigest), true
	case "MaxRecvDataSegmentLength":
		v, ok := number(value, minSegment, maxSegment)
		if !ok {
			return valueReject, true
		}
		n.SendLimit = v
		return "", false
	case "IFMarker", "OFMarker":
		return boolAnswer(value, "No"), true // RFC 7143 13.25: obsolete
	case "IFMarkInt", "OFMarkInt":
		return valueReject, true
	}
	if !isSessionKey(key) {
		return valueNotUnderstood, true
	}
	if !leading || !normal && !strings.HasPrefix(key, "DefaultTime2") && key != "ErrorRecoveryLevel" {
		return valueIrrelevant, true // RFC 7143 13: leading only, or not for discovery
	}
	switch key {
	case "MaxConnections":
		return minimum16(value, 1, 65535, uint16(l.MaxConnections), &p.MaxConnections), true
	case "MaxOutstandingR2T":
		return minimum16(value, 1, 65535, uint16(l.MaxOutstandingR2T), &p.MaxOutstandingR2T), true
	case "MaxBurstLength":
		return minimum32(value, minSegment, maxSegment, uint32(l.MaxBurstLength), &p.MaxBurstLength), true
	case "FirstBurstLength":
		return minimum32(value, minSegment, maxSegment, uint32(l.FirstBurstLength), &p.FirstBurstLength), true
	case "InitialR2T":
		return either(value, l.InitialR2T, &p.InitialR2T), true
	case "ImmediateData":
		return both(value, *l.ImmediateData, &p.ImmediateData), true
	case "DataPDUInOrder", "DataSequenceInOrder":
		return boolAnswer(value, "Yes"), true // result function OR, and we say Yes
	case "DefaultTime2Wait":
		return maximum16(value, 0, maxTime2, uint16(*l.DefaultTime2Wait), &p.DefaultTime2Wait), true
	case "DefaultTime2Retain":
		return minimum16(value, 0, maxTime2, uint16(*l.DefaultTime2Retain), &p.DefaultTime2Retain), true
	case "ErrorRecoveryLevel":
		if _, ok := number(value, 0, 2); !ok {
			return valueReject, true
		}
		return "0", true
	case "TaskReporting":
		// RFC 7143 13.23: the basic semantics are the ones we have.
		return choose(value, []string{"RFC3720"}), true
	case "iSCSIProtocolLevel":
		// RFC 7144 7.1.1: the lower of the two, and ours is RFC 7143's.
		if _, ok := number(value, 0, 31); !ok {
			return valueReject, true
		}
		return "1", true
	}
	return valueNotUnderstood, true
}

// Unexpected answers a key of a text request in full feature phase, where none
// may be negotiated (RFC 7143 13) but MaxRecvDataSegmentLength, which initiators
// leave as it is.
func Unexpected(key string) string {
	if isOperational(key) {
		return valueReject
	}
	return valueNotUnderstood
}

// isOperational tells the keys of the operational negotiation.
func isOperational(key string) bool {
	return isSessionKey(key) || key == "HeaderDigest" || key == "DataDigest" || key == "MaxRecvDataSegmentLength"
}

// isSessionKey tells those that are about the session, and not one connection.
func isSessionKey(key string) bool {
	switch key {
	case "MaxConnections", "MaxOutstandingR2T", "MaxBurstLength", "FirstBurstLength", "InitialR2T", "ImmediateData",
		"DataPDUInOrder", "DataSequenceInOrder", "DefaultTime2Wait", "DefaultTime2Retain", "ErrorRecoveryLevel",
		"TaskReporting", "iSCSIProtocolLevel":
		return true
	}
	return false
}

// check brings values into line that depend on one another: FirstBurstLength
// must not exceed MaxBurstLength (RFC 7143 13.14).
func (n *negotiation) check() {
	n.Params.FirstBurstLength = min(n.Params.FirstBurstLength, n.Params.MaxBurstLength)
}

// digest negotiates a digest from the initiator's list.
func (n *negotiation) digest(value string, ours []string, on *bool) string {
	a := choose(value, ours)
	*on = a == "CRC32C"
	return a
}

// choose picks the first value of the initiator's list that is one of ours.
func choose(value string, ours []string) string {
	for v := range strings.SplitSeq(value, ",") {
		if slices.Contains(ours, v) {
			return v
		}
	}
	return valueReject
}

// number parses a numerical value, decimal or hexadecimal (RFC 7143 6.1).
func number(s string, low, high uint32) (uint32, bool) {
	base := 10
	if len(s) > 2 && (s[:2] == "0x" || s[:2] == "0X") {
		s, base = s[2:], 16
	}
	v, err := strconv.ParseUint(s, base, 32)
	if err != nil || uint32(v) < low || uint32(v) > high {
		return 0, false
	}
	return uint32(v), true
}

func minimum32(s string, low, high, ours uint32, result *uint32) string {
	v, ok := number(s, low, high)
	if !ok {
		return valueReject
	}
	*result = min(v, ours)
	return strconv.FormatUint(uint64(*result), 10)
}

func minimum16(s string, low, high uint32, ours uint16, result *uint16) string {
	var v uint32
	a := minimum32(s, low, high, uint32(ours), &v)
	if a != valueReject {
		*result = uint16(v)
	}
	return a
}

func maximum16(s string, low, high uint32, ours uint16, result *uint16) string {
	v, ok := number(s, low, high)
	if !ok {
		return valueReject
	}
	*result = max(uint16(v), ours)
	return strconv.Itoa(int(*result))
}

func yesNo(v bool) string {
	if v {
		return "Yes"
	}
	return "No"
}

// boolAnswer answers a boolean key whose result does not depend on the offer.
func boolAnswer(value, answer string) string {
	if value != "Yes" && value != "No" {
		return valueReject
	}
	return answer
}

// either negotiates a boolean key with result function OR.
func either(value string, ours bool, result *bool) string {
	if boolAnswer(value, "") == valueReject {
		return valueReject
	}
	*result = ours || value == "Yes"
	return yesNo(*result)
}

// both negotiates a boolean key with result function AND.
func both(value string, ours bool, result *bool) string {
	if boolAnswer(value, "") == valueReject {
		return valueReject
	}
	*result = ours && value == "Yes"
	return yesNo(*result)
}
