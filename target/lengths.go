// SPDX-License-Identifier: Apache-2.0

package target

import (
	"log/slog"

	"github.com/gotgtd/gotgtd/target/storage"
)

// Lengths are those of the files that a Server serves. A successor grows files before it takes
// over, since that can fail. If it is gone then, the growth goes with it.
type Lengths struct {
	log  *slog.Logger
	list []length
}

type length struct {
	target string
	lun    uint16
	store  storage.Store
	bytes  int64
}

// Lengths notes the lengths of the files that may be grown, before an upgrade.
func (s *Server) Lengths() *Lengths {
	if s == nil {
		return &Lengths{}
	}
	l := &Lengths{log: s.log}
	s.mu.Lock()
	targets := s.targets
	s.mu.Unlock()
	for _, t := range targets {
		for _, u := range t.device.LogicalUnits() {
			store := u.Unit.Store() // nil of a controller, which has no length
			if n, ok := storage.Length(store); ok {
				l.list = append(l.list, length{t.conf.Name, u.Number, store, n})
			}
		}
	}
	return l
}

// Restore gives the files that have grown their lengths back. There must be no successor.
func (l *Lengths) Restore() {
	if l == nil {
		return
	}
	for _, n := range l.list {
		if err := storage.CutBack(n.store, n.bytes); err != nil {
			l.log.Error("a file that a successor has grown stays so long, and a reload with the old size is refused: do what the error says",
				"target", n.target, "lun", n.lun, "error", err)
		}
	}
}
