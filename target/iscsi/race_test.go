// SPDX-License-Identifier: Apache-2.0

//go:build race

package iscsi

// allowedAllocs is looser with the race detector, under which a sync.Pool drops
// a part of what it is given.
const allowedAllocs = 20

// withArena is false with the race detector, which sees nothing of what is not of the heap.
const withArena = false
