// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"context"
	"time"

	"github.com/gotgtd/gotgtd/target/storage"
)

// spaceAge is how old a measurement may be that is told.
const spaceAge = time.Minute

// measured is the space of a store at an instant.
type measured struct {
	space storage.Space
	at    time.Duration // since epoch
}

// MeasureSpace asks the backing store what space its blocks take and what there is for more, for
// [LogicalUnit.Space]. It waits for the file system.
func (lu *LogicalUnit) MeasureSpace(ctx context.Context) error {
	if lu.can.Spacious == nil || lu.has(stateAbsent) {
		return nil
	}
	lu.open.RLock()
	defer lu.open.RUnlock()
	if lu.closed {
		return nil
	}
	s, err := lu.can.Spacious.Space(ctx)
	if err != nil {
		return err
	}
	lu.space.Store(&measured{s, now()})
	return nil
}

// Space returns what MeasureSpace has found last, nil for nothing within the last minute.
func (lu *LogicalUnit) Space() *storage.Space {
	m := lu.space.Load()
	if m == nil || now()-m.at > spaceAge {
		return nil
	}
	return &m.space
}
