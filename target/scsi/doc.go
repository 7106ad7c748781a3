// SPDX-License-Identifier: Apache-2.0

// Package scsi is a SCSI device server (SAM-5, SPC-4, SBC-3): disks over backing
// stores, with their sense data, mode pages, unit attentions and reservations. It knows
// nothing of iSCSI.
//
// A [LogicalUnit] is a disk over a [storage.Store]. A [Device] has logical units under
// their numbers. An initiator that is connected to it is a [Nexus]; it has commands
// executed, in two steps: [Nexus.Prepare] checks a [Command] before anything has
// changed, and [Nexus.Execute] does what it asks. Between the two the transport fetches
// the data of a write. What came of it is in Command.Status and Command.Sense.
package scsi
