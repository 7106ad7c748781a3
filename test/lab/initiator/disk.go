// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gotgtd/gotgtd/test/lab"
)

// discover asks both portals for the targets.
func (t *trial) discover(ctx context.Context) {
	t.step(ctx, "discovery", func(ctx context.Context) error {
		for portal, want := range map[string][]string{
			portal1: {loadTarget, diskTarget, scsiTarget, onlineTarget, sharedTarget, pathsTarget},
			portal2: {pathsTarget},
		} {
			out, err := t.machines[0].Run(ctx, "iscsiadm -m discovery -t sendtargets -p "+portal)
			if err != nil {
				return err
			}
			for _, iqn := range want {
				if !strings.Contains(out, fmt.Sprintf("%s,", portal)) || !strings.Contains(out, " "+iqn+"\n") {
					return fmt.Errorf("%s does not have %s at %s:\n%s", portal, iqn, portal, out)
				}
			}
		}
		return t.upgrades.now(ctx)
	})
}

// fileSystemType is a file system: its name, and how it is made and checked on $part.
type fileSystemType struct{ name, make, check string }

var (
	ext4 = fileSystemType{"ext4", "mkfs.ext4 -q $part", "e2fsck -f -n $part"}
	xfs  = fileSystemType{"xfs", "mkfs.xfs -q -f $part", "xfs_repair -n $part"}
)

// fileSystem partitions the disk, puts a file system and files on it, and looks at them in
// a second session with other settings.
func (t *trial) fileSystem(ctx context.Context, fs fileSystemType, first, second []string) {
	m := t.machines[0]
	var device string
	in := func(ctx context.Context, script string) (string, error) {
		return m.Run(ctx, fmt.Sprintf("set -eu; dev=%s; part=${dev}1; mnt=/mnt; %s", device, script))
	}
	do := func(name, script string) bool {
		return t.step(ctx, fs.name+": "+name, func(ctx context.Context) error {
			_, err := in(ctx, script)
			return err
		})
	}
	login := func(settings []string) bool {
		return t.step(ctx, fmt.Sprintf("%s: login, digests %s", fs.name, value(settings)), func(ctx context.Context) (err error) {
			device, err = t.login(ctx, m, diskTarget, 1, settings)
			return err
		})
	}
	logout := func() bool {
		return t.step(ctx, fs.name+": logout", func(ctx context.Context) error { return m.Logout(ctx, diskTarget, portal1) })
	}
	size := "32m"
	if t.lab.Short {
		size = "8m"
	}
	const verify = "fio --name=verify --filename=$mnt/fio --size=%s --rw=randwrite --bs=4k --ioengine=libaio --iodepth=16 " +
		"--direct=1 --fsync=256 --verify=crc32c --verify_fatal=1 --output-format=terse --terse-version=3 "
	fio := fmt.Sprintf(verify, size)
	var sum string
	_ = login(first) &&
		do("sfdisk, fdisk", "printf 'label: gpt\\n,,\\n' | sfdisk -q $dev; udevadm settle; fdisk -l $dev | grep ${dev}1") &&
		do("mkfs", "wipefs -q -a $part; "+fs.make) &&
		do("mount", "mount $part $mnt; findmnt -n -t "+fs.name+" $mnt") &&
		do("fio, verified", fio+"--do_verify=1") &&
		t.step(ctx, fs.name+": write, fsync and checksum a file", func(ctx context.Context) (err error) {
			sum, err = in(ctx, "dd if=/dev/urandom of=$mnt/file bs=1M count="+strings.TrimSuffix(size, "m")+" conv=fsync status=none; sha256sum $mnt/file")
			return err
		}) &&
		do("umount", "umount $mnt") &&
		logout() &&
		login(second) &&
		do("mount again", "mount $part $mnt") &&
		t.step(ctx, fs.name+": compare", func(ctx context.Context) error {
			again, err := in(ctx, "sha256sum $mnt/file")
			if err == nil && again != sum {
				err = fmt.Errorf("the file was %s and is %s", sum, again)
			}
			_, fioErr := in(ctx, fio+"--verify_only")
			return errors.Join(err, fioErr)
		}) &&
		do("umount and check", "umount $mnt; "+fs.check) &&
		logout()
}

// value is what comes after the first setting's name.
func value(settings []string) string {
	_, v, _ := strings.Cut(settings[0], "=")
	return v
}

// rescan has a machine look for changes of all its sessions' logical units.
func rescan(ctx context.Context, m *lab.Machine) error {
	_, err := m.Run(ctx, "iscsiadm -m session -R && udevadm settle")
	return err
}
