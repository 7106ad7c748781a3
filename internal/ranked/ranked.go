// SPDX-License-Identifier: Apache-2.0

// Package ranked has a mutex that knows its place in an order of locks. With the
// build tag "ranked" a goroutine that locks one while it holds another of the same or a
// higher rank panics: two goroutines that take two locks the one way and the other
// may wait for each other for ever, but most runs of a test don't show it. In other
// builds it is a sync.Mutex.
package ranked

// Rank is a place in an order of locks: a goroutine takes locks of rising rank.
// The zero Rank is not checked.
type Rank uint8
