// SPDX-License-Identifier: Apache-2.0

//go:build !race

package iscsi

// allowedAllocs is how many allocations a command may cost: the runtime has
// some of its own in the background.
const allowedAllocs = 0.01

// withArena says where the buffers of Nodes under test are.
const withArena = true
