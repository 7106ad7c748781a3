// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"net/netip"
	"time"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// SessionInfo is a session as [Node.Sessions] reports it.
type SessionInfo struct {
	Initiator   string
	Alias       string
	Account     string     // CHAP name, empty for none
	Address     netip.Addr // that the first connection came from
	Target      string     // empty for a discovery session
	ISID        pdu.ISID
	TSIH        uint16
	Group       uint16 // portal group tag
	Started     time.Time
	Connections []ConnectionInfo
	Tasks       int            // in the task set
	Inflight    map[uint16]int // the same by logical unit
	Counters    scsi.Counters
	LastIO      time.Time // of reads and writes, zero for never; see [scsi.LogicalUnit.LastIO]
	Masked      []uint16  // logical unit numbers that it does not see
	Leaving     bool      // it was asked to log out
	Params      Params
}

// ConnectionInfo is a connection of a session.
type ConnectionInfo struct {
	CID          uint16
	Local        netip.AddrPort
	Remote       netip.AddrPort
	HeaderDigest bool
	DataDigest   bool
}
