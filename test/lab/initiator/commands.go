// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gotgtd/gotgtd/test/lab"
)

// miscompare is the exit status of sg3_utils' programs when the sense key is MISCOMPARE.
const miscompare = 14

// commands sends SCSI commands of which the kernel itself sends few or none.
func (t *trial) commands(ctx context.Context) {
	m := t.machines[0]
	var device string
	in := func(ctx context.Context, script string) (string, error) {
		return m.Run(ctx, fmt.Sprintf("set -eu; dev=%s; cd /run; %s", device, script))
	}
	do := func(name, script string, want ...string) bool {
		return t.step(ctx, name, func(ctx context.Context) error {
			out, err := in(ctx, script)
			for _, w := range want {
				if err == nil && !strings.Contains(out, w) {
					err = fmt.Errorf("%q is not in\n%s", w, out)
				}
			}
			return err
		})
	}
	// blocks FROM COUNT prints blocks of the device.
	const blocks = `blocks() { dd if=$dev bs=64k skip=$(($1 * 512)) count=$(($2 * 512)) iflag=direct,skip_bytes,count_bytes status=none; }; `
	ok := t.step(ctx, "login for SCSI commands", func(ctx context.Context) (err error) {
		device, err = t.login(ctx, m, scsiTarget, 1, digests)
		return err
	})
	if !ok {
		return
	}
	do("sg_inq", "sg_inq $dev", "Vendor identification: IET", "Product identification: VIRTUAL-DISK", "Unit serial number: "+serial(scsiTarget, 1))
	do("sg_vpd", "for page in sv sn di bl bdc lbpv; do sg_vpd --page=$page $dev; done",
		"designator type: NAA", "Block limits VPD page", "Block device characteristics", "Logical block provisioning", "Unit serial number: "+serial(scsiTarget, 1),
		"Unmap command supported (LBPU): 1", "Write same (16) with unmap bit supported (LBPWS): 1")
	do("sg_write_same", blocks+`
		head -c 512 /dev/urandom >pattern; cp pattern many
		for i in 1 2 3 4 5 6 7 8 9 10 11; do cat many many >more; mv more many; done
		sg_write_same --16 --lba=4096 --num=2048 --xferlen=512 --in=pattern $dev
		blocks 4096 2048 | cmp - many
		blocks 6144 1 | cmp -s - pattern && exit 1; blocks 4095 1 | cmp -s - pattern && exit 1; true`)
	do("sg_unmap", blocks+`
		sg_unmap --force --lba=4096 --num=1024 $dev
		blocks 4096 1024 | cmp - /dev/zero 2>&1 | grep 'EOF on -'
		blocks 5120 1024 | cmp -n 524288 - many
		sg_get_lba_status --lba=4096 $dev`, "deallocated")
	t.step(ctx, "sg_compare_and_write", func(ctx context.Context) error {
		_, err := in(ctx, blocks+`
			head -c 512 /dev/urandom >new; cat pattern new >caw
			sg_compare_and_write --lba=5120 --num=1 --in=caw --xferlen=1024 $dev
			blocks 5120 1 | cmp - new`)
		if err != nil {
			return err
		}
		// What is to be there is not there any more.
		var exit *lab.ExitError
		if out, err := in(ctx, "sg_compare_and_write --lba=5120 --num=1 --in=caw --xferlen=1024 $dev"); !errors.As(err, &exit) || exit.Status != miscompare {
			return fmt.Errorf("the second time: %w\n%s, and not status %d", err, out, miscompare)
		}
		_, err = in(ctx, blocks+"blocks 5120 1 | cmp - new; blocks 5121 1 | cmp - pattern")
		return err
	})
	do("sg_persist", `
		sg_persist --in --report-capabilities $dev
		sg_persist --out --register --param-sark=0xabc $dev
		sg_persist --out --reserve --param-rk=0xabc --prout-type=3 $dev
		sg_persist --in --read-reservation $dev; sg_persist --in --read-keys $dev
		sg_persist --out --release --param-rk=0xabc --prout-type=3 $dev
		sg_persist --out --register --param-rk=0xabc --param-sark=0 $dev
		sg_persist --in --read-keys $dev`,
		"Persist Through Power Loss Capable", "Exclusive Access", "Key=0xabc", "there are NO registered reservation keys")
	for _, reset := range []string{"device", "target"} {
		do("sg_reset --"+reset, blocks+"sg_reset --no-esc --"+reset+" $dev; blocks 5120 1 | cmp - new; blocks 5121 1 | cmp - pattern")
	}
	do("sg_inq and write after the resets", blocks+`
		sg_inq $dev; head -c 512 /dev/urandom >new
		dd if=new of=$dev bs=512 seek=9000 oflag=direct conv=notrunc,fsync status=none; blocks 9000 1 | cmp - new`)
	t.step(ctx, "logout after SCSI commands", func(ctx context.Context) error { return m.Logout(ctx, scsiTarget, portal1) })
}
