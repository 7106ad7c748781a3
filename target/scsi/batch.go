// SPDX-License-Identifier: Apache-2.0

package scsi

import "time"

// A Batch counts commands that one goroutine executes in place, directly after each other. As long as
// they are of one I_T nexus, one logical unit and one kind, they share two readings of the clock and
// one update of each counter, which by themselves cost more than a tenth of a small command. Each
// of them counts with their mean duration: from the beginning of the first until Stop, or until the
// first that is not like them. The zero Batch is ready to use. It belongs to one goroutine.
type Batch struct {
	nexus *Nexus
	at    *attachment
	kind  workKind

	began time.Duration // an instant; 0: nothing is gathered
	ended uint64        // commands
	moved Counters
}

// begin makes the batch gather what is like c.
func (b *Batch) begin(c *Command) {
	k := workOf(&c.CDB)
	if b.began != 0 && b.kind == k && b.at == c.exec.at && b.nexus == c.exec.nexus {
		return
	}
	at := now()
	b.stop(at)
	b.nexus, b.at, b.kind, b.began = c.exec.nexus, c.exec.at, k, at
}

// Stop counts what was gathered. Who uses a batch calls it before they wait for anything, and
// when the answers of the commands are queued. A nil Batch has nothing.
func (b *Batch) Stop() {
	if b != nil && b.began != 0 {
		b.stop(now())
	}
}

// stop counts what was gathered until an instant.
func (b *Batch) stop(at time.Duration) {
	if b.began == 0 {
		return
	}
	if b.ended > 0 {
		b.at.lu.activity.of(b.kind).inPlace.RecordMean(at-b.began, b.ended)
	}
	if b.moved != (Counters{}) {
		b.at.lu.stats.add(&b.moved)
		b.nexus.stats.add(&b.moved)
		b.nexus.share(b.at.number).add(&b.moved)
	}
	*b = Batch{}
}
