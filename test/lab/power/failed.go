// SPDX-License-Identifier: Apache-2.0

package power

import (
	"context"
	"errors"
	"fmt"

	"github.com/gotgtd/gotgtd/internal/initiator"
)

// failedFlush has a disk fail while what was written is brought to it. The system reports that
// once to whoever has the device open, and here another program is the first to be told. No flush may
// succeed any more: neither the next generation's, which has opened the device after that, nor
// that of the one after, which is told by its predecessor.
func (r *runner) failedFlush(ctx context.Context) error {
	s := r.scene("gotgtd", ext4)
	defer r.machine.kill()
	defer s.logout()
	if err := s.up(ctx, true); err != nil {
		return err
	}
	u := s.units[0] // a device: a file system whose disk fails has failures of its own
	p := make([]byte, 64<<10)
	u.stamp(p, 0)
	if err := u.do(ctx, cdb16(u.lun, codeWrite16, 0, 0, len(p)/u.blockSize, p)); err != nil {
		return err
	}
	disk := s.machine.disks[rawDisk]
	disk.fail(true)
	_, err := s.machine.run(ctx, "sync "+device(rawDisk))
	disk.fail(false)
	if err == nil {
		return errors.New("control: the disk has failed, and another program's fsync has not")
	}
	for generation := 2; generation <= 3; generation++ {
		if err := s.disturb(ctx, upgrade); err != nil {
			return err
		}
		cmd := new(initiator.Command).Flush(initiator.LUN(u.lun))
		err := u.do(ctx, cmd)
		if err == nil {
			return fmt.Errorf("generation %d: SYNCHRONIZE CACHE is GOOD, and what was written is lost", generation)
		}
		if cmd.Err != nil || cmd.Status != initiator.StatusCheckCondition {
			return err
		}
	}
	return nil
}
