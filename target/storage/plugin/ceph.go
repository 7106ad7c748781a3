// SPDX-License-Identifier: Apache-2.0

//go:build ceph

package plugin

import _ "github.com/gostor/gotgt/pkg/scsi/backingstore/cephstore" // ceph-rbd: needs cgo and librbd
