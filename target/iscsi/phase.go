// SPDX-License-Identifier: Apache-2.0

package iscsi

// Node, connection, session and task each have one phase. It changes in one
// function, which refuses what the table beside it does not have. The tables
// are written out in the comments of the types, and a test compares the two.

// phases is a set of phases of one type.
type phases uint16

func set[P ~uint8](list ...P) (s phases) {
	for _, p := range list {
		s |= 1 << p
	}
	return s
}

func has[P ~uint8](s phases, p P) bool { return s>>p&1 == 1 }

// nodePhase is where a [Node] is in its life.
//
//	restoring ──► serving, retired
//	serving   ──► frozen, closing
//	frozen    ──► serving, closing, retired
//	closing   ──► closing
//	retired   ──► retired
//
// In restoring and retired the connections are another process's. A Node begins
// in serving; Restore takes it to restoring and Start back, Freeze and Thaw to
// frozen and back, Retire to retired, Shutdown and Close to closing.
type nodePhase uint8

const (
	nodeServing nodePhase = iota
	nodeRestoring
	nodeFrozen  // readers stop at the next PDU, workers take no new task
	nodeClosing // nothing new begins
	nodeRetired
)

var nodeMoves = [...]phases{
	nodeRestoring: set(nodeServing, nodeRetired),
	nodeServing:   set(nodeFrozen, nodeClosing),
	nodeFrozen:    set(nodeServing, nodeClosing, nodeRetired),
	nodeClosing:   set(nodeClosing),
	nodeRetired:   set(nodeRetired),
}

// The phases in which nothing moves, in which the connections are another
// process's, and in which the end has come.
var (
	nodeStill   = set(nodeRestoring, nodeFrozen, nodeRetired)
	nodeForeign = set(nodeRestoring, nodeRetired)
	nodeEnding  = set(nodeClosing, nodeRetired)
)

// connPhase is where a connection is in its life.
//
//	login   ──► full, closed
//	full    ──► leaving, closed
//	leaving ──► closed
//	closed  ──►
type connPhase uint8

const (
	connLogin   connPhase = iota
	connFull              // full feature phase
	connLeaving           // a logout request has come; nothing counts after it (RFC 7143 11.14)
	connClosed            // ended says why
)

var connMoves = [...]phases{
	connLogin:   set(connFull, connClosed),
	connFull:    set(connLeaving, connClosed),
	connLeaving: set(connClosed),
	connClosed:  0,
}

// sessionPhase is where a session is in its life.
//
//	opening ──► open, ending
//	open    ──► ending
//	ending  ──► gone
//	gone    ──►
type sessionPhase uint8

const (
	sessionOpening sessionPhase = iota // in the table, and the login of its first connection not over
	sessionOpen
	sessionEnding // no task starts any more
	sessionGone
)

var sessionMoves = [...]phases{
	sessionOpening: set(sessionOpen, sessionEnding),
	sessionOpen:    set(sessionEnding),
	sessionEnding:  set(sessionGone),
	sessionGone:    0,
}

// taskPhase is where a SCSI command is on its way.
//
//	early    ──► data, ended
//	data     ──► blocked, running, ended
//	ready    ──► running, ended
//	blocked  ──► ready, ended
//	running  ──► ready, answered, ended
//	answered ──►
//	ended    ──►
//
// A command begins in early and goes on to data at once if its turn has come. It
// goes from running back to ready if it would block the goroutine that it is on. An
// abort of a running task takes effect when it stops running.
type taskPhase uint8

// The numbers of the first five are part of snapshots.
const (
	taskEarly    taskPhase = iota // ahead of ExpCmdSN
	taskData                      // Data-Out still to come
	taskReady                     // with the scheduler
	taskBlocked                   // behind tasks that it must not overtake
	taskRunning                   // in the device server, or waiting for those that it has preempted
	taskAnswered                  // out of the task set; belongs to the output of its connection
	taskEnded                     // out of the task set, without an answer
)

var taskMoves = [...]phases{
	taskEarly:    set(taskData, taskEnded),
	taskData:     set(taskBlocked, taskRunning, taskEnded),
	taskReady:    set(taskRunning, taskEnded),
	taskBlocked:  set(taskReady, taskEnded),
	taskRunning:  set(taskReady, taskAnswered, taskEnded),
	taskAnswered: 0,
	taskEnded:    0,
}
