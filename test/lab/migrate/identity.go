// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gotgtd/gotgtd/test/lab"
)

// identities are what an initiator knows its disks by: a line for each fact. That of a disk begins with its
// target and LUN; that of a name, such as a link in /dev/disk/by-id, ends with the label of the
// file system that the name leads to.
type identities []string

// readIdentities prints the identities. The kernel and udev look at every disk anew first, and what is
// read, is read from the disk: neither can be what somebody remembers.
const readIdentities = `set -eu
iscsiadm -m session -R >/dev/null
udevadm settle
udevadm trigger --action=change --subsystem-match=block --sysname-match='sd*' --settle
label() { dd if="$1" bs=4k count=1 iflag=direct status=none | tail -c +1145 | head -c 16 | tr -d '\0'; }
hex() { sg_inq --raw "$@" | od -An -v -tx1 | tr -d ' \n'; }
for path in /dev/disk/by-path/ip-*; do
	disk=${path##*-iscsi-} dev=$(readlink -f "$path")
	fact() { echo "$disk: $*"; }
	fact "contents $(label "$dev")"
	fact "size $(blockdev --getsize64 "$dev"), blocks $(blockdev --getss "$dev")"
	fact "scsi_id $(/lib/udev/scsi_id -g -d "$dev")"
	/lib/udev/scsi_id -g -x -d "$dev" | while read -r line; do fact "$line"; done
	fact "page 80h, scsi_id $(/lib/udev/scsi_id -g -p 0x80 -d "$dev")"
	sg_inq "$dev" | grep -E '^ *(Vendor|Product) identification|^ *Product revision|^ *Unit serial' | while read -r line; do fact "$line"; done
	fact "page 80h $(hex --page=0x80 "$dev")"
	fact "page 83h $(hex --page=0x83 "$dev")"
	fact "multipath's path WWID $(multipathd show paths raw format '%d %w' | sed -n "s/^${dev##*/} *//p")"
done
for link in /dev/disk/by-id/*; do echo "$link: $(label "$link")"; done
multipath -v2 -ll | grep -v '^[|` + "`" + ` s]' | while read -r wwid _ what; do
	echo "multipath $wwid $what: $(label "/dev/mapper/$wwid")"
done`

// identitiesOf returns what a machine knows its disks by.
func identitiesOf(ctx context.Context, m *lab.Machine) (identities, error) {
	out, err := m.Run(ctx, readIdentities)
	if err != nil {
		return nil, err
	}
	var facts identities
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		disk, page, ok := strings.Cut(line, ": page 83h ")
		if !ok {
			facts = append(facts, line)
			continue
		}
		list, err := designators(page)
		if err != nil {
			return nil, fmt.Errorf("%s: page 83h, %s: %w", disk, page, err)
		}
		for n, d := range list {
			facts = append(facts, fmt.Sprintf("%s: designator %d %s", disk, n+1, d))
		}
	}
	slices.Sort(facts)
	return facts, nil
}

// designators are those of the logical unit in a device identification page (SPC-4 7.8.6), in order: those of its
// target and port come from the session, and tgt has none. An initiator does not see the NUL characters
// that tgt pads text with.
func designators(page string) ([]string, error) {
	b, err := hex.DecodeString(page)
	if err != nil || len(b) < 4 {
		return nil, errors.New("it is no page")
	}
	var list []string
	for b = b[4:]; len(b) > 0; {
		if len(b) < 4 || len(b) < 4+int(b[3]) {
			return nil, errors.New("a designator is cut off")
		}
		value := b[4 : 4+b[3]]
		if b[1]>>4&3 == 0 {
			form := "%x"
			if b[0]&0xf == 2 { // ASCII
				form, value = "%q", bytes.TrimRight(value, "\x00")
			}
			list = append(list, fmt.Sprintf("of type %d: "+form, b[1]&0xf, value))
		}
		b = b[4+b[3]:]
	}
	return list, nil
}

// errChanged is what kept finds.
var errChanged = errors.New("disks have other identities than before")

// kept returns an error if any of the facts is another one now. There may be
// more of them: disks that were added.
func (before identities) kept(now identities) error {
	if len(before) == 0 {
		return errors.New("nothing was known of any disk")
	}
	var changes []string
	changed := make(map[string]bool) // by what the fact is about
	for _, line := range before {
		if !slices.Contains(now, line) {
			about, _, _ := strings.Cut(line, ": ")
			changed[about] = true
			changes = append(changes, "- "+line)
		}
	}
	if len(changes) == 0 {
		return nil
	}
	for _, line := range now {
		if about, _, _ := strings.Cut(line, ": "); changed[about] && !slices.Contains(before, line) {
			changes = append(changes, "+ "+line)
		}
	}
	return fmt.Errorf("%w:\n%s", errChanged, strings.Join(changes, "\n"))
}

// are returns an error if there are not n disks, with an identity each.
func (i identities) are(n int) error {
	disks := make(map[string]string) // by identity
	for _, line := range i {
		disk, wwid, ok := strings.Cut(line, ": scsi_id ")
		if !ok {
			continue
		}
		if other := disks[wwid]; other != "" {
			return fmt.Errorf("%s and %s are both %q", other, disk, wwid)
		}
		disks[wwid] = disk
	}
	if len(disks) != n {
		return fmt.Errorf("there are %d disks, and should be %d:\n%s", len(disks), n, strings.Join(i, "\n"))
	}
	return nil
}
