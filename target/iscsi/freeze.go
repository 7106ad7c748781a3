// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gotgtd/gotgtd/target/scsi"
)

// freezePatience is how long a freeze waits for a command before it ends what that waits for in its
// store. It is executed again afterwards, here or in the successor.
const freezePatience = 200 * time.Millisecond

// Why a call of a store is ended.
var (
	errUpgrade = errors.New("the target is frozen for an upgrade")
	errRemoved = errors.New("the logical unit was removed")
)

// endCalls ends what running commands wait for in their stores, as far as these heed that.
func (n *Node) endCalls(why error, which func(*task) bool) {
	for _, s := range n.sessionList() {
		s.mu.Lock()
		for _, t := range s.tasks.byTag {
			if which(t) {
				t.endLocked(why)
			}
		}
		s.mu.Unlock()
	}
}

// EndCalls ends what running commands of a device's logical unit wait for in its store, which is to be
// closed: those that waited find the logical unit gone.
func (n *Node) EndCalls(device *scsi.Device, lun uint16) {
	n.endCalls(errRemoved, func(t *task) bool { return t.terms.device == device && sameUnit(t, lun) })
}

// Freeze stops the Node: no byte is read from or written to a connection and
// no command runs when it returns nil, and everything that was under way is
// kept as it is. It waits for running commands until ctx ends, after a while only for those
// whose store doesn't heed that nobody waits for it and for COMPARE AND WRITE; then the Node
// goes on as before, and the error names the commands that were in the way.
// No connection may be given to [Node.Serve] meanwhile. Thaw or Retire end the freeze.
func (n *Node) Freeze(ctx context.Context) error {
	n.freeze.still.Lock()
	n.mu.Lock()
	if !n.freeze.moveLocked(nodeFrozen) {
		n.mu.Unlock()
		n.freeze.still.Unlock()
		return ErrClosed
	}
	close(n.freeze.begun)
	n.mu.Unlock()
	for _, c := range n.connList() {
		c.sock.Wake()
		c.out.Wake()
	}
	stop := context.AfterFunc(ctx, func() {
		n.mu.Lock()
		n.freeze.change.Broadcast()
		n.mu.Unlock()
	})
	defer stop()
	if n.awaitParked(ctx) && n.quiesce(ctx) {
		for _, c := range n.connList() {
			c.out.Idle()
		}
		if !n.freeze.is(set(nodeFrozen)) {
			return ErrClosed
		}
		return nil
	}
	err := fmt.Errorf("iscsi: can't stop: %s", n.running())
	n.Thaw()
	return err
}

// quiesce waits until no command runs, or ctx ends.
func (n *Node) quiesce(ctx context.Context) bool {
	var ended sync.WaitGroup
	defer ended.Wait()
	quiet := make(chan struct{})
	defer close(quiet)
	ended.Go(func() {
		timer := time.NewTimer(freezePatience)
		defer timer.Stop()
		select {
		case <-timer.C:
			n.endCalls(errUpgrade, func(t *task) bool { return t.cmd.Repeatable() })
		case <-quiet:
		}
	})
	return n.work.Quiesce(ctx.Done())
}

// awaitParked waits until every connection's reader stands still or is gone.
func (n *Node) awaitParked(ctx context.Context) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for n.freeze.parked < len(n.conns.all) {
		if ctx.Err() != nil {
			return false
		}
		n.freeze.change.Wait()
	}
	return true
}

// running describes the commands that are executing, for the report of a
// freeze that failed.
func (n *Node) running() string {
	var list []string
	for _, s := range n.sessionList() {
		s.mu.Lock()
		for _, t := range s.tasks.byTag {
			if t.phase != taskRunning {
				continue
			}
			what := fmt.Sprintf("target %s LUN %v opcode %#02x", s.targetName(), t.cmd.LUN, t.req.CDB[0])
			if lba, blocks, ok := t.cmd.LBA(); ok {
				what += fmt.Sprintf(" LBA %d+%d", lba, blocks)
			}
			if !t.started.IsZero() {
				what += fmt.Sprintf(" for %v", time.Since(t.started).Round(time.Millisecond))
			}
			list = append(list, what)
		}
		s.mu.Unlock()
	}
	if len(list) == 0 {
		return "a connection does not come to rest"
	}
	const most = 8
	if len(list) > most {
		list = append(list[:most], fmt.Sprintf("and %d more", len(list)-most))
	}
	return "commands still run: " + strings.Join(list, "; ")
}

// Thaw lets a frozen Node go on as if nothing had been. It does nothing to a
// Node that is not frozen.
func (n *Node) Thaw() {
	n.mu.Lock()
	thawed := n.freeze.is(set(nodeFrozen)) && n.freeze.moveLocked(nodeServing)
	if thawed {
		n.freeze.endLocked()
	}
	n.mu.Unlock()
	if thawed {
		n.work.Resume()
		n.memory.Retry()
	}
}

// Retire ends a frozen Node whose sessions have moved to another process: the
// file descriptors are closed, the TCP connections stay open. It returns when
// nothing of the Node runs any more.
func (n *Node) Retire() {
	n.mu.Lock()
	if n.freeze.is(set(nodeFrozen)) && n.freeze.moveLocked(nodeRetired) {
		n.freeze.endLocked()
	}
	n.mu.Unlock()
	n.halt()
	n.join()
}
