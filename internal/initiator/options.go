// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// CHAP holds the credentials of both sides (RFC 7143 12.1.3). The zero CHAP
// means no authentication.
type CHAP struct {
	User, Secret string // how the initiator proves itself; both or neither
	// TargetUser and TargetSecret are what the target must prove; an empty
	// TargetSecret means one-way authentication, an empty TargetUser that
	// any name is accepted.
	TargetUser, TargetSecret string
	// Algorithms is offered in this order; empty means SHA3-256, SHA-256,
	// SHA1, MD5.
	Algorithms []Algorithm
}

// Options says how to log in. Address and, in a normal session, TargetName
// are needed; every other field may be zero.
type Options struct {
	Address       string // host:port of the portal
	InitiatorName string // zero: iqn.2026-11.io.gotgtd:initiator
	Alias         string // InitiatorAlias; zero: none is told
	// ISID tells sessions of one initiator apart; logging in again with the
	// same one reinstates the session. Zero: a random one of the "random"
	// type (RFC 7143 11.12.5).
	ISID       pdu.ISID
	TargetName string
	Discovery  bool // a discovery session instead of a normal one

	CHAP CHAP
	// OfferNone adds None to the offered authentication methods when CHAP
	// has credentials.
	OfferNone bool
	// OperationalFirst begins with operational negotiation, leaving security
	// negotiation out. It needs an empty CHAP.
	OperationalFirst bool

	HeaderDigest string // list to offer: "CRC32C", "None" or both; zero: "None"
	DataDigest   string // as HeaderDigest

	InitialR2T    bool // propose Yes
	ImmediateData bool // propose Yes

	FirstBurstLength         uint32 // bytes; zero: 64 KiB, or MaxBurstLength when that is less
	MaxBurstLength           uint32 // bytes; zero: 256 KiB
	MaxRecvDataSegmentLength uint32 // bytes, declared; zero: 256 KiB
	MaxOutstandingR2T        uint32 // zero: 1
	MaxConnections           uint32 // zero: 1

	// ExtraKeys are added to the operational negotiation. One that has the
	// name of a key that is sent anyway replaces it, and then the answer is
	// not checked, only recorded.
	ExtraKeys []pdu.Pair

	InitialCmdSN uint32 // CmdSN of the login and the first command

	// OnAsync is told of asynchronous messages before they are answered; once
	// it hears of a request to log out, new commands are refused. It runs on the
	// reading goroutine and must not block. May be nil.
	OnAsync func(m pdu.AsyncMessage, data []byte)
	// DialContext opens the connection; nil: a net.Dialer.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
}

// withDefaults fills in zero fields and checks what cannot work.
func (o Options) withDefaults() (Options, error) {
	setDefault(&o.InitiatorName, "iqn.2026-11.io.gotgtd:initiator")
	setDefault(&o.HeaderDigest, "None")
	setDefault(&o.DataDigest, "None")
	setDefault(&o.MaxBurstLength, 256<<10)
	setDefault(&o.FirstBurstLength, min(64<<10, o.MaxBurstLength))
	setDefault(&o.MaxRecvDataSegmentLength, 256<<10)
	setDefault(&o.MaxOutstandingR2T, 1)
	setDefault(&o.MaxConnections, 1)
	if o.ISID == (pdu.ISID{}) {
		o.ISID = randomISID()
	}
	if o.DialContext == nil {
		o.DialContext = new(net.Dialer).DialContext
	}
	if len(o.CHAP.Algorithms) == 0 {
		o.CHAP.Algorithms = []Algorithm{SHA3256, SHA256, SHA1, MD5}
	}
	switch {
	case o.Address == "":
		return o, errors.New("initiator: no address to log in to")
	case o.TargetName == "" && !o.Discovery:
		return o, errors.New("initiator: no target name for a normal session")
	case (o.CHAP.User == "") != (o.CHAP.Secret == ""):
		return o, errors.New("initiator: CHAP needs both user and secret")
	case o.CHAP.TargetSecret != "" && o.CHAP.Secret == "":
		return o, errors.New("initiator: mutual CHAP needs the initiator's own secret too")
	case o.OperationalFirst && o.CHAP.Secret != "":
		return o, errors.New("initiator: CHAP needs the security stage")
	case o.MaxRecvDataSegmentLength > pdu.MaxDataSegment:
		return o, fmt.Errorf("initiator: MaxRecvDataSegmentLength %d is more than a header can say", o.MaxRecvDataSegmentLength)
	}
	return o, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Params is what a login came to.
type Params struct {
	TSIH                     uint16
	TargetPortalGroupTag     uint16
	HeaderDigest             bool // of this connection
	DataDigest               bool // of this connection
	InitialR2T               bool
	ImmediateData            bool
	FirstBurstLength         uint32 // bytes
	MaxBurstLength           uint32 // bytes
	MaxSendDataSegmentLength uint32 // bytes; what the target declared for this connection
	MaxOutstandingR2T        uint32
	MaxConnections           uint32
	DefaultTime2Wait         uint32 // seconds
	DefaultTime2Retain       uint32 // seconds
	ErrorRecoveryLevel       uint32

	CmdSN     uint32 // of the first command
	ExpStatSN uint32 // that the next response has
	ExpCmdSN  uint32 // as the target said last
	MaxCmdSN  uint32 // as the target said last

	// Keys is every pair that the target sent, in order.
	Keys []pdu.Pair
}

// Key returns the last value that the target sent for a key.
func (p *Params) Key(name string) (string, bool) {
	for i := len(p.Keys) - 1; i >= 0; i-- {
		if p.Keys[i].Key == name {
			return p.Keys[i].Value, true
		}
	}
	return "", false
}
