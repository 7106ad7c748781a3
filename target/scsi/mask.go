// SPDX-License-Identifier: Apache-2.0

package scsi

import "slices"

// masks reports whether the logical unit number is hidden from the nexus. It
// takes no lock.
func (n *Nexus) masks(u uint16) bool {
	m := n.masked.Load()
	return m != nil && m.has(u)
}

// Sees reports whether the device has a logical unit u that is not masked from
// the nexus.
func (n *Nexus) Sees(u uint16) bool { return n.dev.attachment(u) != nil && !n.masks(u) }

// Mask makes masked the logical unit numbers that are hidden from the nexus, in
// place of those before: for it, there is no logical unit there. Where that
// changes what it sees, REPORTED LUNS DATA HAS CHANGED is pending afterwards.
// A logical unit that it sees from now on it has to ask by INQUIRY what it is, as
// one that was attached. From one that it does not see any more its SPC-2
// reservation and its prevention of removal go; its registration and persistent
// reservation stay (SPC-4 5.12.5), for other nexuses to see and to preempt. Mask
// is not for concurrent use with itself.
func (n *Nexus) Mask(masked []uint16) {
	before := n.masked.Load()
	if before == nil && len(masked) == 0 {
		return // as nearly always: a successor asks for each session, while all wait
	}
	n.setMask(masked)
	changed := false
	attachments := *n.dev.attachments.Load()
	for u, at := range attachments {
		was, is := before != nil && before.has(u), n.masks(u)
		switch {
		case was == is:
			continue
		case is:
			n.setPrevent(at, false)
			at.reservations.NexusLost(n.reservationKey())
		default:
			n.attentions.replace(u, nil)
			if !at.lu.controller {
				n.attentions.raise(at, unmet)
			}
		}
		changed = true
	}
	if changed {
		n.attentions.raiseAll(attachments, ascReportedLUNsChanged)
	}
}

// setMask hides the logical units from commands, and does nothing else.
func (n *Nexus) setMask(masked []uint16) {
	if len(masked) == 0 {
		n.masked.Store(nil)
		return
	}
	m := make(bitmap, int(slices.Max(masked)>>6)+1)
	for _, u := range masked {
		m[u>>6].Or(1 << (u & 63))
	}
	n.masked.Store(&m)
}

// Masked returns the numbers that are hidden from the nexus, in order.
func (n *Nexus) Masked() []uint16 {
	m := n.masked.Load()
	if m == nil {
		return nil
	}
	var list []uint16
	for u := range len(*m) * 64 {
		if m.has(uint16(u)) {
			list = append(list, uint16(u))
		}
	}
	return list
}
