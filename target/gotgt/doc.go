// SPDX-License-Identifier: Apache-2.0

// Package gotgt is a target driver for programs that embed gotgt (v0.2.2).
// Imported in place of gotgt's pkg/port/iscsit, it registers itself under the
// same name, "iscsi", with gotgt's scsi.RegisterTargetDriver, and the program
// is served by this project's engine:
//
//	iscsit "github.com/gotgtd/gotgtd/target/gotgt" // was "github.com/gostor/gotgt/pkg/port/iscsit"
//
// The rest of the program stays: gotgt's LUN map, its backing stores, its
// configuration and its scsi.SCSITargetDriver. Only one of the two packages
// can be imported; with both, the program panics as it starts.
//
// A program that calls [Upgradable] before it runs its driver can be replaced
// while initiators use it.
//
// What a program may notice: portal group tags are common to all targets of a
// driver; Close ends the sessions and not the listener alone; an address that
// can't be listened on is an error of Run and not the end of the process; log
// lines go to [Log]; nothing is entered into the tables of I_T nexuses of
// gotgt's SCSITargetService.
package gotgt

import (
	"log/slog"

	"github.com/gostor/gotgt/pkg/scsi"
)

// driverName is what gotgt's own driver is registered as.
const driverName = "iscsi"

// EnableStats makes drivers that are created afterwards count commands, for
// Stats. gotgt's iscsit has it under the same name.
var EnableStats bool

// Log is where drivers that are created afterwards log to; nil:
// slog.Default().
var Log *slog.Logger

func init() {
	register()
}

// register takes the driver's name in gotgt's registry, which would let the
// last one have it without a word. Packages are initialized in the order of
// their paths, so gotgt's is there first.
func register() {
	if _, err := scsi.NewTargetDriver(driverName, nil); err == nil {
		panic(`target driver "iscsi" is registered already: import either github.com/gotgtd/gotgtd/target/gotgt ` +
			`or github.com/gostor/gotgt/pkg/port/iscsit, not both`)
	}
	scsi.RegisterTargetDriver(driverName, NewISCSITargetDriver)
}
