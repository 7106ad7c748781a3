// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"errors"
	"fmt"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// Errors that end commands or sessions.
var (
	// ErrClosed is the end of a session that this side closed.
	ErrClosed = errors.New("initiator: session closed")
	// ErrLoggedOut is the end of a session, and of what was still under way,
	// after a logout.
	ErrLoggedOut = errors.New("initiator: logged out")
	// ErrAborted ends a command that a task management function aborted.
	ErrAborted = errors.New("initiator: command aborted by task management")
	// ErrTooManyCommands refuses a command when MaxTasks are under way.
	ErrTooManyCommands = errors.New("initiator: too many commands under way")
	// ErrLogoutRequested refuses a command after the target has asked for a
	// logout (RFC 7143 11.9.1, event 1).
	ErrLogoutRequested = errors.New("initiator: target asked for logout")
)

// A Violation is something that the target must not do.
type Violation struct {
	Rule string // what was broken, with numbers
	PDU  string // the PDU that broke it, as it prints itself
}

func (v *Violation) Error() string {
	if v.PDU == "" {
		return "initiator: protocol violation: " + v.Rule
	}
	return fmt.Sprintf("initiator: protocol violation: %s: in %s", v.Rule, v.PDU)
}

// violation returns a Violation; p may be nil.
func violation(p fmt.Stringer, format string, args ...any) error {
	v := &Violation{Rule: fmt.Sprintf(format, args...)}
	if p != nil {
		v.PDU = p.String()
	}
	return v
}

// A LoginError is a login that the target refused with a status
// (RFC 7143 11.13.5).
type LoginError struct {
	Status pdu.LoginStatus
}

func (e *LoginError) Error() string {
	return fmt.Sprintf("initiator: login refused with status %#04x", uint16(e.Status))
}

// A RejectError is a PDU that the target rejected (RFC 7143 11.17).
type RejectError struct {
	Reason pdu.RejectReason
	Header pdu.BHS // of the PDU that was rejected
}

func (e *RejectError) Error() string {
	what := fmt.Sprintf("opcode %#x", uint8(e.Header.Opcode()))
	if p := pdu.New(e.Header.Opcode()); p != nil {
		p.Decode(&e.Header)
		what = p.String()
	}
	return fmt.Sprintf("initiator: target rejected, reason %#x: %s", uint8(e.Reason), what)
}

// A StatusError is a command that ended with another status than GOOD.
type StatusError struct {
	CDB    [16]byte
	Status uint8
	Sense  []byte // sense data, fixed or descriptor format; empty unless CHECK CONDITION
}

func (e *StatusError) Error() string {
	key, code := DecodeSense(e.Sense)
	return fmt.Sprintf("initiator: command %#02x ended with status %#02x, sense key %#x, code %#04x", e.CDB[0], e.Status, key, code)
}
