// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"net/netip"

	"github.com/gotgtd/gotgtd/target/iscsi/tally"
)

// Sessions returns the sessions in order of their TSIH.
func (n *Node) Sessions() []SessionInfo {
	var list []SessionInfo
	for _, s := range n.sessionList() {
		list = append(list, s.info())
	}
	return list
}

// SampleIO notes when each session has last read or written. It does nothing in a freeze, and while
// sessions are restored.
func (n *Node) SampleIO() {
	n.freeze.outsideNow(func() {
		for _, s := range n.sessionList() {
			s.mu.Lock()
			nexus := s.nexus
			s.mu.Unlock()
			if nexus != nil {
				nexus.LastIO()
			}
		}
	})
}

// Initiators returns the remote addresses of all connections, those that have
// not logged in yet among them, in no order.
func (n *Node) Initiators() []netip.AddrPort {
	list := n.connList()
	addrs := make([]netip.AddrPort, len(list))
	for i, c := range list {
		addrs[i] = c.remote
	}
	return addrs
}

// MemoryUsed returns the bytes that initiators have: buffers on loan, and commands.
func (n *Node) MemoryUsed() int64 { return n.memory.Used() }

// TrimMemory gives the memory of buffers that are not on loan back to the system.
func (n *Node) TrimMemory() { n.arena.Trim() }

// MemoryWaiting returns how many commands wait for memory.
func (n *Node) MemoryWaiting() int { return int(n.wait.waiting.Load()) }

// Totals returns what has become of logins and connections since the start, over handoffs.
func (n *Node) Totals() tally.Totals { return n.tally.Load() }

// Workers returns how many commands that may block can be executed at once, and how many are.
func (n *Node) Workers() (limit, busy int) { return n.opt.Workers, n.work.Busy() }

// MemoryLimit returns the bytes that initiators may have; see package account.
func (n *Node) MemoryLimit() int64 { return n.memory.Limit() }
