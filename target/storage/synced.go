// SPDX-License-Identifier: Apache-2.0

//go:build !withoutsync

package storage

import "golang.org/x/sys/unix"

// dsync has a write return when it is on stable storage.
const dsync = unix.RWF_DSYNC

// fdatasync brings what was written to stable storage. Tests replace it.
var fdatasync = unix.Fdatasync
