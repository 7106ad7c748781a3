// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// inherit gives a direct-store what the device behind it says about itself,
// where the configuration has nothing else: vendor, product, revision, serial
// number and geometry.
func (c *tgtLUNContext) inherit(d tgtDirective) {
	dir, err := sysfsDevice(c.lun.Path)
	if err != nil {
		c.b.warn(d, "%w: it is served like a backing-store", err)
		return
	}
	c.inheritFrom(dir)
}

// sysfsDevice is the directory in sysfs of the disk at path, or of the disk
// that the partition at path is on.
func sysfsDevice(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", fmt.Errorf("%q is not a block device", path)
	}
	dir := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", cause(err, "can't find %q in sysfs", path)
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		dir = filepath.Dir(dir)
	}
	if _, err := os.Stat(filepath.Join(dir, "device", "vendor")); err != nil {
		return "", fmt.Errorf("%q is not a SCSI device", path)
	}
	return dir, nil
}

// inheritFrom reads the properties of the disk with this directory in sysfs.
func (c *tgtLUNContext) inheritFrom(dir string) {
	read := func(name string) string {
		data, _ := os.ReadFile(filepath.Join(dir, name)) // what is not there is not inherited
		return string(data)
	}
	number := func(name string) uint64 {
		n, _ := strconv.ParseUint(strings.TrimSpace(read(name)), 10, 32)
		return n
	}
	l := c.lun
	orDefault(&l.Vendor, printable(read("device/vendor"), 8))
	orDefault(&l.Product, printable(read("device/model"), 16))
	orDefault(&l.Revision, printable(read("device/rev"), 4))
	if page := read("device/vpd_pg80"); len(page) > 4 { // behind the page's header (SPC-4 7.8.15)
		orDefault(&l.Serial, printable(page[4:], 36))
	}
	logical := number("queue/logical_block_size")
	if logical == 512 || logical == 4096 {
		orDefault(&l.BlockSize, int(logical))
	}
	if logical == 0 || uint64(l.BlockSize) != logical {
		return // the rest counts in blocks of another size
	}
	if n := number("queue/physical_block_size") / logical; n > 0 && l.PhysicalBlockExponent == nil {
		l.PhysicalBlockExponent = new(min(bits.Len64(n)-1, 15))
	}
	if n := number("queue/minimum_io_size") / logical; n > 1 && n < 1<<16 {
		orDefault(&l.OptimalTransferGranularity, uint16(n))
	}
	orDefault(&l.OptimalTransferLength, uint32(number("queue/optimal_io_size")/logical))
}

// printable takes the characters of a field of INQUIRY data that are text.
func printable(s string, width int) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s))
	return s[:min(len(s), width)]
}
