// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"iter"

	"github.com/gotgtd/gotgtd/internal/boottime"
	"github.com/gotgtd/gotgtd/target/iscsi/guess"
	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/iscsi/tally"
	"github.com/gotgtd/gotgtd/target/iscsi/transfer"
)

// The state of a frozen Node as plain data. Fields are only ever added; a
// field that an older process does not know is one that it can do without.

// NodeState is everything that a successor needs to go on with the sessions
// of a Node, besides the sockets.
type NodeState struct {
	LastTSIH    uint16            `cbor:"1,keyasint"`
	Sessions    []SessionState    `cbor:"2,keyasint"`
	Connections []ConnectionState `cbor:"3,keyasint"`
	Rejections  []Rejection       `cbor:"4,keyasint,omitempty"`
	Totals      *tally.Totals     `cbor:"5,keyasint,omitempty"` // nil from a process that did not tell it
	Guesses     []guess.Failed    `cbor:"6,keyasint,omitempty"` // proofs that have failed
}

// SessionState is a session.
type SessionState struct {
	TSIH      uint16         `cbor:"1,keyasint"`
	ISID      pdu.ISID       `cbor:"2,keyasint"`
	Initiator string         `cbor:"3,keyasint"`
	Alias     string         `cbor:"4,keyasint"`
	Target    string         `cbor:"5,keyasint"` // empty for a discovery session
	Group     uint16         `cbor:"6,keyasint"`
	Params    Params         `cbor:"7,keyasint"`
	Started   int64          `cbor:"8,keyasint"` // nanoseconds since 1970
	ExpCmdSN  uint32         `cbor:"9,keyasint"`
	MaxCmdSN  uint32         `cbor:"10,keyasint"`
	LastTTT   uint32         `cbor:"11,keyasint"`
	Arrivals  uint64         `cbor:"12,keyasint"`
	Text      textExchange   `cbor:"13,keyasint"`
	Ending    bool           `cbor:"14,keyasint"`
	Tasks     []TaskState    `cbor:"15,keyasint"` // in the order of delivery
	Pending   []PendingState `cbor:"16,keyasint"` // in the order of CmdSN
	Resetting bool           `cbor:"17,keyasint,omitempty"`
	Leave     int64          `cbor:"18,keyasint,omitempty"` // nanoseconds since 1970; 0 if not asked to log out
	Account   []byte         `cbor:"19,keyasint,omitempty"` // CHAP name, any bytes; a process that did not tell it leaves it empty
	Address   []byte         `cbor:"20,keyasint,omitempty"` // that the first connection came from: 4 or 16 bytes and a zone
	Apart     bool           `cbor:"21,keyasint,omitempty"` // its data follows later, see Rest

	// Leave and Started by a clock that nobody sets; 0 from a process that did not tell it.
	LeaveStamp   boottime.Stamp `cbor:"22,keyasint,omitempty"`
	StartedStamp boottime.Stamp `cbor:"23,keyasint,omitempty"`
}

// TaskState is a command that has not run yet.
type TaskState struct {
	BHS         pdu.BHS        `cbor:"1,keyasint"`
	CID         uint16         `cbor:"2,keyasint"`
	State       taskPhase      `cbor:"3,keyasint"`
	Order       uint64         `cbor:"4,keyasint"`
	Data        []byte         `cbor:"5,keyasint"` // data-out that has arrived
	Received    uint32         `cbor:"6,keyasint"`
	Unsolicited bool           `cbor:"7,keyasint"`
	OutSN       uint32         `cbor:"8,keyasint"`
	Asked       uint32         `cbor:"9,keyasint"`
	R2Ts        []transfer.R2T `cbor:"10,keyasint"`
	R2TSN       uint32         `cbor:"11,keyasint"`
	Broken      uint16         `cbor:"12,keyasint"`
	Aborted     bool           `cbor:"13,keyasint"`
	Done        bool           `cbor:"14,keyasint"` // its outcome is known: Status and Sense
	Status      uint8          `cbor:"15,keyasint"`
	Sense       []byte         `cbor:"16,keyasint"`
	Progress    uint64         `cbor:"17,keyasint,omitempty"` // bytes that are done; who does not know it begins anew
	Again       bool           `cbor:"18,keyasint,omitempty"` // it was ended in the midst of a change: see scsi.Command.KeepRangeForRepeat
}

// PendingState is a request that is ahead of ExpCmdSN.
type PendingState struct {
	CmdSN uint32  `cbor:"1,keyasint"`
	BHS   pdu.BHS `cbor:"2,keyasint"`
	CID   uint16  `cbor:"3,keyasint"`
	Data  []byte  `cbor:"4,keyasint"`
	Task  bool    `cbor:"5,keyasint"` // a SCSI command, to be found among the tasks
	Plug  bool    `cbor:"6,keyasint"`
}

// ConnectionState is a connection. Its socket travels beside it: the n-th
// state belongs to the n-th socket.
type ConnectionState struct {
	TSIH         uint16       `cbor:"1,keyasint"` // 0 during login
	CID          uint16       `cbor:"2,keyasint"`
	Group        uint16       `cbor:"3,keyasint"`
	Born         int64        `cbor:"4,keyasint"` // nanoseconds since 1970
	HeaderDigest bool         `cbor:"5,keyasint"`
	DataDigest   bool         `cbor:"6,keyasint"`
	SendLimit    int          `cbor:"7,keyasint"`
	ReceiveLimit int          `cbor:"8,keyasint"`
	StatSN       uint32       `cbor:"9,keyasint"`
	LoggingOut   bool         `cbor:"10,keyasint"`
	Last         bool         `cbor:"11,keyasint"`
	Login        *login.Login `cbor:"12,keyasint"`
	In           []byte       `cbor:"13,keyasint"` // read from the socket, without effect so far
	Out          []byte       `cbor:"14,keyasint"` // for the socket, not taken by the kernel so far
	Heard        uint32       `cbor:"15,keyasint"`

	BornStamp boottime.Stamp `cbor:"16,keyasint,omitempty"` // Born by a clock that nobody sets; 0 from a process that did not tell it
}

// Bulk yields where the state holds data: what has arrived for write commands, and what the
// sockets have not taken. The order is part of the format, see docs/handoff.md.
func (st *NodeState) Bulk() iter.Seq[*[]byte] {
	return func(yield func(*[]byte) bool) {
		for i := range st.Sessions {
			s := &st.Sessions[i]
			for j := range s.Tasks {
				if !yield(&s.Tasks[j].Data) {
					return
				}
			}
			for j := range s.Pending {
				if !yield(&s.Pending[j].Data) {
					return
				}
			}
		}
		for i := range st.Connections {
			if c := &st.Connections[i]; !yield(&c.In) || !yield(&c.Out) {
				return
			}
		}
	}
}

// leaveOut takes the data out of a session's state.
func (st *SessionState) leaveOut() {
	st.Apart = true
	for i := range st.Tasks {
		st.Tasks[i].Data = nil
	}
	for i := range st.Pending {
		st.Pending[i].Data = nil
	}
}

// apart is a restored session whose data is still to come. It belongs to [Node.Follow].
type apart struct {
	state SessionState
	out   map[uint16][][]byte // by CID
	done  chan struct{}       // closed when its connections may run
}

// textExchange is a text negotiation under way (RFC 7143 11.10). It is plain
// data and protected by the session's mutex.
type textExchange struct {
	ITT  uint32 `cbor:"1,keyasint"`
	TTT  uint32 `cbor:"2,keyasint"` // the initiator's next request of the exchange carries it
	Open bool   `cbor:"3,keyasint"`
	In   []byte `cbor:"4,keyasint"` // parts of a continued request
	Out  []byte `cbor:"5,keyasint"` // parts of the response still to be fetched
}
