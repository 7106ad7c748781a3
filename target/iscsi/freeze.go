// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// freezer brings all goroutines of a Node to a stop and back.
//
//	running ──Freeze──► frozen ──Thaw──► running
//	                      └──Retire──► retired
type freezer struct {
	outside sync.RWMutex // held for writing while frozen; see Node.outside

	mu      sync.Mutex         // protects the fields below
	change  sync.Cond          // signalled when parked changes
	parked  map[*conn]struct{} // whose readers this freeze has stopped
	begun   chan struct{}      // closed while frozen
	release chan struct{}      // closed at the end of the freeze
	frozen  bool
	retired bool
}

func (f *freezer) init() {
	f.change.L = &f.mu
	f.parked = make(map[*conn]struct{})
	f.begun = make(chan struct{})
	f.release = make(chan struct{})
}

// started returns a channel that is closed while the Node is frozen.
func (f *freezer) started() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.begun
}

// park holds a reading goroutine until the freeze ends. It reports whether
// the connection is still this process's.
func (f *freezer) park(c *conn) bool {
	f.mu.Lock()
	if !f.frozen {
		defer f.mu.Unlock()
		return !f.retired
	}
	f.parked[c] = struct{}{}
	f.change.Broadcast()
	release := f.release
	f.mu.Unlock()
	<-release
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.retired
}

// gone notes that a connection has ended on its own.
func (f *freezer) gone() {
	f.mu.Lock()
	f.change.Broadcast()
	f.mu.Unlock()
}

// Freeze stops the Node: no byte is read from or written to a connection and
// no command runs when it returns nil, and everything that was under way is
// kept as it is. It waits for running commands until ctx ends; then the Node
// goes on as before, and the error names the commands that were in the way.
// No connection may be given to [Node.Serve] meanwhile. Thaw or Retire end the freeze.
func (n *Node) Freeze(ctx context.Context) error {
	n.freeze.mu.Lock()
	n.freeze.frozen = true
	close(n.freeze.begun)
	n.freeze.mu.Unlock()
	n.frozen.Store(true)
	n.freeze.outside.Lock()
	for _, c := range n.connList() {
		c.sock.Wake()
		c.out.wake()
	}
	stop := context.AfterFunc(ctx, func() {
		n.freeze.mu.Lock()
		n.freeze.change.Broadcast()
		n.freeze.mu.Unlock()
	})
	defer stop()
	if n.awaitParked(ctx) && n.work.quiesce(ctx.Done()) {
		for _, c := range n.connList() {
			c.out.writer.Wait()
		}
		return nil
	}
	err := fmt.Errorf("iscsi: can't stop: %s", n.running())
	n.Thaw()
	return err
}

// awaitParked waits until every connection's reader stands still or is gone.
func (n *Node) awaitParked(ctx context.Context) bool {
	f := &n.freeze
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		f.mu.Unlock()
		missing := false
		conns := n.connList()
		f.mu.Lock()
		for _, c := range conns {
			if _, ok := f.parked[c]; !ok {
				missing = true
			}
		}
		if !missing {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		f.change.Wait()
	}
}

// running describes the commands that are executing, for the report of a
// freeze that failed.
func (n *Node) running() string {
	var list []string
	for _, s := range n.sessionList() {
		s.mu.Lock()
		for _, t := range s.tasks {
			if t.state != taskRunning {
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
	if !n.unfreeze(false) {
		return
	}
	n.work.resume()
	n.memory.serve(n)
}

// unfreeze ends the freeze and releases the readers.
func (n *Node) unfreeze(retire bool) bool {
	f := &n.freeze
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.frozen {
		return false
	}
	f.frozen, f.retired = false, retire
	f.begun = make(chan struct{})
	n.frozen.Store(retire) // a retired Node stays still
	clear(f.parked)        // from here on they run, as soon as they may
	close(f.release)
	f.release = make(chan struct{})
	f.outside.Unlock()
	return true
}

// outside runs f, which does something to sessions from a goroutine that a
// freeze does not stop, such as a timer's. It waits for the end of a freeze; if
// that has left the sessions to a successor, f does not run.
func (n *Node) outside(f func()) {
	n.freeze.outside.RLock()
	defer n.freeze.outside.RUnlock()
	if !n.foreign.Load() {
		f()
	}
}

// Retire ends a frozen Node whose sessions have moved to another process: the
// file descriptors are closed, the TCP connections stay open. It returns when
// nothing of the Node runs any more.
func (n *Node) Retire() {
	n.mu.Lock()
	n.closed = true
	select {
	case <-n.stop:
	default:
		close(n.stop)
	}
	n.mu.Unlock()
	n.foreign.Store(true)
	n.unfreeze(true)
	n.join()
}
