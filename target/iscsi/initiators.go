// SPDX-License-Identifier: Apache-2.0

package iscsi

import "net/netip"

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
