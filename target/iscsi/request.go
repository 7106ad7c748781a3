// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/mem"
)

// request is a non-immediate request that came ahead of its turn.
type request struct {
	conn *conn
	bhs  pdu.BHS
	data *mem.Buffer // data segment, nil for none
	task *task       // of a SCSI command; nil for the others
}
