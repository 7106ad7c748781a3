// SPDX-License-Identifier: Apache-2.0

//go:build !plantedfault

package iscsi

import "github.com/gotgtd/gotgtd/target/iscsi/pdu"

// plantedFault is a fault in builds that try whether FuzzStream finds one.
func plantedFault(*task, *pdu.DataOut) {}
