// SPDX-License-Identifier: Apache-2.0

//go:build race

package iscsi

// allowedAllocs is looser with the race detector, under which a sync.Pool drops
// a part of what it is given.
const allowedAllocs = 20
