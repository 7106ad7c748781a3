// SPDX-License-Identifier: Apache-2.0

// Package tally counts what becomes of logins and connections, and what initiators ask for
// besides commands. The reasons are a fixed set: nothing that an initiator says becomes one.
package tally

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"syscall"

	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/iscsi/stream"
)

// An Ending is why a connection ends: the reason under which it is counted, and what the log says.
type Ending struct {
	Reason string // one of Reasons
	What   string
}

func (e *Ending) Error() string { return e.What }

// Endingf returns an [Ending].
func Endingf(reason, format string, args ...any) error {
	return &Ending{reason, fmt.Sprintf(format, args...)}
}

// The reasons of connections that end.
const (
	LoggedOut        = "logout"
	ClosedByPeer     = "closed_by_initiator"
	NetworkError     = "network_error"
	ProtocolError    = "protocol_error"
	HeaderDigest     = "header_digest"
	NOPTimeout       = "nop_timeout"
	R2TTimeout       = "r2t_timeout"
	LoginTimeout     = "login_timeout"
	LoginFailed      = "login_failed"
	DiscoveryTimeout = "discovery_timeout"
	Reinstated       = "reinstated"
	Displaced        = "displaced"
	Limit            = "limit"
	SessionLost      = "session_lost"
	TargetReset      = "target_reset"
	Dismissed        = "dismissed"
	Shutdown         = "shutdown"
	other            = "other"
)

var reasons = []string{
	LoggedOut, ClosedByPeer, NetworkError, ProtocolError, HeaderDigest, NOPTimeout, R2TTimeout, LoginTimeout, LoginFailed,
	DiscoveryTimeout, Reinstated, Displaced, Limit, SessionLost, TargetReset, Dismissed, Shutdown, other,
}

// Reasons returns the reasons for which connections end.
func Reasons() []string { return slices.Clone(reasons) }

// reasonOf returns the reason that an error stands for.
func reasonOf(err error) string {
	var e *Ending
	var errno syscall.Errno
	switch {
	case errors.As(err, &e) && slices.Contains(reasons, e.Reason):
		return e.Reason
	case errors.As(err, new(login.Error)):
		return LoginFailed
	case errors.Is(err, stream.ErrHeaderDigest):
		return HeaderDigest
	case errors.As(err, new(stream.FormatError)):
		return ProtocolError
	case errors.As(err, &errno), errors.Is(err, os.ErrDeadlineExceeded):
		return NetworkError
	}
	return other
}

// refusals are the reasons of logins that are refused, by their status (RFC 7143 11.13.5).
var refusals = map[pdu.LoginStatus]string{
	pdu.InitiatorError: "initiator_error", pdu.AuthenticationFailure: "authentication_failed", pdu.AuthorizationFailure: "not_authorized",
	pdu.TargetNotFound: "target_not_found", pdu.TargetRemoved: "target_removed", pdu.UnsupportedVersion: "unsupported_version",
	pdu.TooManyConnections: "too_many_connections", pdu.MissingParameter: "missing_parameter", pdu.CantIncludeInSession: "cannot_include_in_session",
	pdu.SessionTypeNotSupported: "session_type_not_supported", pdu.SessionDoesNotExist: "session_does_not_exist",
	pdu.InvalidDuringLogin: "invalid_during_login", pdu.TargetError: "target_error", pdu.ServiceUnavailable: "service_unavailable",
	pdu.OutOfResources: "out_of_resources",
}

// Incomplete is the reason of a login that has begun and that its connection has not survived.
const Incomplete = "incomplete"

// Refusals returns the reasons for which logins fail.
func Refusals() []string {
	return append(slices.Sorted(maps.Values(refusals)), Incomplete)
}

// Refusal returns the reason for which a login fails with an error.
func Refusal(err error) string {
	var e login.Error
	if errors.As(err, &e) && refusals[e.Status] != "" {
		return refusals[e.Status]
	}
	return refusals[pdu.InitiatorError] // the status of what is no login.Error, see login.Refusal
}

// functions are the task management functions (RFC 7143 11.5.1).
var functions = map[pdu.TaskFunction]string{
	pdu.AbortTask: "abort_task", pdu.AbortTaskSet: "abort_task_set", pdu.ClearACA: "clear_aca", pdu.ClearTaskSet: "clear_task_set",
	pdu.LogicalUnitReset: "logical_unit_reset", pdu.TargetWarmReset: "target_warm_reset", pdu.TargetColdReset: "target_cold_reset",
	pdu.TaskReassign: "task_reassign",
}

// Functions returns the task management functions, and what stands for all others.
func Functions() []string { return append(slices.Sorted(maps.Values(functions)), other) }

// Totals is what was counted since the start, over handoffs.
type Totals struct {
	Logins       []Login           `cbor:"1,keyasint,omitempty" json:"logins,omitempty"`        // by target and outcome
	Closed       map[string]uint64 `cbor:"2,keyasint,omitempty" json:"closed,omitempty"`        // connections, by reason
	Management   map[string]uint64 `cbor:"3,keyasint,omitempty" json:"management,omitempty"`    // requests, by function
	DigestErrors map[string]uint64 `cbor:"4,keyasint,omitempty" json:"digest_errors,omitempty"` // PDUs with a digest that does not match, "header" or "data"
}

// Login counts the logins of connections with one outcome.
type Login struct {
	Target string `cbor:"1,keyasint" json:"target"` // "" for discovery, and for a target that is not there
	Reason string `cbor:"2,keyasint" json:"reason"` // why it has failed, "" if it has not
	Count  uint64 `cbor:"3,keyasint" json:"count"`
}

// Tally counts. The zero Tally is ready to use. It is safe for concurrent use, and takes no other lock.
type Tally struct {
	mu     sync.Mutex // protects the fields below
	logins map[[2]string]uint64
	counts [3]map[string]uint64
}

// The maps of Tally.counts.
const (
	closed = iota
	management
	digests
)

// Login counts a login; reason is why it has failed. target is one that there is, or "".
func (t *Tally) Login(target, reason string) { t.login(target, reason, 1) }

func (t *Tally) login(target, reason string, n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.logins == nil {
		t.logins = make(map[[2]string]uint64)
	}
	t.logins[[2]string{target, reason}] += n
}

func (t *Tally) count(which int, what string, n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts[which] == nil {
		t.counts[which] = make(map[string]uint64)
	}
	t.counts[which][what] += n
}

// Closed counts a connection that has ended with an error.
func (t *Tally) Closed(err error) {
	reason := reasonOf(err)
	t.count(closed, reason, 1)
	if reason == HeaderDigest {
		t.count(digests, "header", 1)
	}
}

// DataDigest counts a PDU whose data segment is damaged.
func (t *Tally) DataDigest() { t.count(digests, "data", 1) }

// Management counts a task management request.
func (t *Tally) Management(f pdu.TaskFunction) {
	name, ok := functions[f]
	if !ok {
		name = other
	}
	t.count(management, name, 1)
}

// Load returns what was counted so far.
func (t *Tally) Load() Totals {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := Totals{Logins: []Login{}, Closed: map[string]uint64{}, Management: map[string]uint64{}, DigestErrors: map[string]uint64{}}
	for key, n := range t.logins {
		c.Logins = append(c.Logins, Login{key[0], key[1], n})
	}
	slices.SortFunc(c.Logins, func(a, b Login) int {
		return slices.Compare([]string{a.Target, a.Reason}, []string{b.Target, b.Reason})
	})
	maps.Copy(c.Closed, t.counts[closed])
	maps.Copy(c.Management, t.counts[management])
	maps.Copy(c.DigestErrors, t.counts[digests])
	return c
}

// Add counts what another process has counted; nil adds nothing.
func (t *Tally) Add(c *Totals) {
	if c == nil {
		return
	}
	for _, l := range c.Logins {
		t.login(l.Target, l.Reason, l.Count)
	}
	for which, m := range []map[string]uint64{closed: c.Closed, management: c.Management, digests: c.DigestErrors} {
		for what, n := range m {
			t.count(which, what, n)
		}
	}
}
