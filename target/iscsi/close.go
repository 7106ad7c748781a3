// SPDX-License-Identifier: Apache-2.0

package iscsi

import "context"

// Shutdown asks every initiator to log out, waits for that until ctx ends,
// then closes what is left. Commands under way finish.
func (n *Node) Shutdown(ctx context.Context) {
	n.beginClosing()
	for _, s := range n.sessionList() {
		s.requestLogout()
	}
	for _, s := range n.sessionList() {
		select {
		case <-s.gone:
		case <-ctx.Done():
		}
	}
	n.Close()
}

// beginClosing lets nothing new begin. A Node whose connections are another
// process's leaves them alone.
func (n *Node) beginClosing() {
	n.mu.Lock()
	defer n.mu.Unlock()
	frozen := n.freeze.is(set(nodeFrozen))
	if !n.freeze.moveLocked(nodeClosing) {
		n.freeze.moveLocked(nodeRetired)
	}
	if frozen {
		for c := range n.conns.all {
			c.close(errShutdown) // before its reader goes on
		}
		n.freeze.endLocked()
	}
}

// Close ends every connection and waits until all goroutines of the Node are
// gone.
func (n *Node) Close() {
	n.beginClosing()
	n.halt()
	for _, c := range n.connList() {
		c.close(errShutdown)
	}
	n.work.Resume()
	n.join()
}

// halt ends what runs besides the connections.
func (n *Node) halt() { n.stopOnce.Do(func() { close(n.stop) }) }

// join waits until nothing of a closed Node runs any more, and closes what is
// left open.
func (n *Node) join() {
	n.wg.Wait()
	n.work.Wait()
	for _, c := range n.connList() {
		c.sock.Close() // restored and never started
	}
	n.leaveSeats()
	_ = n.arena.Close() // buffers of tasks that a successor has are on loan for good
}
