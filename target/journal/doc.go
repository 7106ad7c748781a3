// SPDX-License-Identifier: Apache-2.0

// Package journal keeps what a successor must know of sessions, connections and logical units if the
// process that serves them dies at any instruction. It is one memory file that outlives the process. The bytes
// themselves, of PDUs and of data, lie in the arena of package mem; the journal says where.
//
// A record has two places. A transaction of a session writes the stale place of every record that it
// changes, and then stores one word: from then on all of it is in force, before that nothing. What is in force is
// the version with the highest tag that is not above that word.
//
// Positions in the two streams of a connection are not recorded. The kernel knows them even if the process dies
// between a system call and its next instruction: [Positions].
//
// docs/crash.md has the layout and the order of stores. The journal is not written by the daemon yet.
package journal
