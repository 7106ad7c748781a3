// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"slices"

	"golang.org/x/sys/unix"
)

// An entry is a descriptor that is kept. Its number is kept as it is, and not as an os.File, which
// would have the runtime's poller wake this process for whatever happens to the socket.
type entry struct {
	id       uint64
	name     string
	fd       int
	position uint64 // in the order of the PUTs; never given twice
	gone     bool
}

// A table has the descriptors by id and in the order in which they came. It is not safe for
// concurrent use.
type table struct {
	byID  map[uint64]*entry
	order []*entry // by position; those that are gone are taken out now and then
	last  uint64   // position
	names map[string]int
}

func newTable() table { return table{byID: map[uint64]*entry{}, names: map[string]int{}} }

func (t *table) nextPosition() uint64 {
	t.last++
	return t.last
}

func (t *table) add(e *entry) {
	t.byID[e.id] = e
	t.order = append(t.order, e)
	t.names[e.name]++
}

// remove takes an entry out; its descriptor is still open.
func (t *table) remove(e *entry) {
	e.gone = true
	delete(t.byID, e.id)
	if t.names[e.name]--; t.names[e.name] == 0 {
		delete(t.names, e.name)
	}
	if len(t.order) > 2*len(t.byID)+16 {
		t.order = slices.DeleteFunc(t.order, func(e *entry) bool { return e.gone })
	}
}

// from returns those behind a position, in order; some may be gone.
func (t *table) from(position uint64) []*entry {
	i, found := slices.BinarySearchFunc(t.order, position, func(e *entry, p uint64) int {
		switch {
		case e.position < p:
			return -1
		case e.position > p:
			return 1
		}
		return 0
	})
	if found {
		i++
	}
	return t.order[i:]
}

// at returns the entry at a position, nil if it is gone.
func (t *table) at(position uint64) *entry {
	if list := t.from(position - 1); len(list) > 0 && list[0].position == position && !list[0].gone {
		return list[0]
	}
	return nil
}

// hangUp ends the connection, if it is one, for all who hold the socket: close(2) alone would
// tell the peer nothing while another process has it.
func (e *entry) hangUp() { _ = unix.Shutdown(e.fd, unix.SHUT_RDWR) }
