// SPDX-License-Identifier: Apache-2.0

// Package initiator is an iSCSI initiator (RFC 7143, ErrorRecoveryLevel 0)
// made to test targets. It believes nothing: every PDU of the target is held
// against what the standard allows at that point (sequence numbers, tags,
// offsets, final bits, residuals, digests, reserved fields), and the first
// deviation ends the session with a [Violation] that names the PDU.
//
// [Dial] opens a [Session]; [Session.Submit] runs commands side by side, and
// helpers run the usual ones to their end. [Login] stops after the login and
// returns the bare [Wire], for tests that break the protocol on purpose.
// [Verifier] checks that a region holds what was written to it; [Load] measures
// throughput and latency.
//
// A session has one reading and one writing goroutine for each connection. The
// reader runs the completion functions; commands that these submit gather in
// the connection's output and leave in one vectored write before the reader
// next waits for input.
package initiator
