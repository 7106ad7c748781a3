// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gotgtd/gotgtd/test/peer"
)

// TestCrowd lets scripts like Pacemaker's and cinder's work at once, beside reloads and
// gotgtd's own commands. Each command does what its exit status says, and nothing that one
// has made is lost by another.
func TestCrowd(t *testing.T) {
	t.Parallel()
	yaml := fmt.Sprintf("targets:\n  - name: %s\n    tid: 1\n    luns:\n      - lun: 1\n        path: %s\n", peer.IQN, sparse(t, "file.img", 8<<20))
	s := startToolsOn(t, peer.Options{YAML: yaml})
	dir := t.TempDir()
	var all sync.WaitGroup
	script := func(lines ...string) {
		all.Go(func() {
			for _, line := range lines {
				args := strings.Fields(line)
				if args[0] == "gotgtd" {
					args = append(args, "--control", s.gotgtd.Control())
					args[0] = program.Path(t)
				}
				if out, code := s.run(t, nil, args[0], args[1:]...); code != 0 {
					t.Errorf("%s: exit status %d\n%s", line, code, out)
				}
			}
		})
	}
	const scripts = 5
	var want []string
	for i := range scripts {
		tid, image, name := 100+i, sparse(t, "disk.img", 8<<20), fmt.Sprintf("iqn.2026-11.test:script-%d", i)
		script(
			fmt.Sprintf("tgtadm --lld iscsi --op new --mode target --tid %d --targetname %s", tid, name),
			fmt.Sprintf("tgtadm --lld iscsi --op new --mode logicalunit --tid %d --lun 1 -b %s", tid, image),
			fmt.Sprintf("tgtadm --lld iscsi --op update --mode logicalunit --tid %d --lun 1 --params scsi_sn=serial-%d", tid, i),
			fmt.Sprintf("tgtadm --lld iscsi --op bind --mode target --tid %d -I 192.0.2.%d", tid, i),
		)
		want = append(want, fmt.Sprintf("Target %d: %s\n", tid, name), image, fmt.Sprintf("SCSI SN: serial-%d\n", i), fmt.Sprintf("192.0.2.%d\n", i))
	}
	var volumes []string
	for i := range 3 { // one after the other: cinder has a lock, and the numbers are none that the scripts want
		volume, conf := fmt.Sprintf("iqn.2010-10.org.openstack:volume-%d", i), filepath.Join(dir, fmt.Sprintf("volume-%d.conf", i))
		text := fmt.Sprintf("<target %s>\n    controller_tid %d\n    backing-store %s\n</target>\n", volume, 200+i, sparse(t, "volume.img", 8<<20))
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		volumes = append(volumes, fmt.Sprintf("tgt-admin --conf %s --update %s", conf, volume))
		want = append(want, volume+"\n")
	}
	volumes = append(volumes, "tgt-admin --delete iqn.2010-10.org.openstack:volume-0")
	script(volumes...)
	var luns []string
	for i := range 3 {
		image := sparse(t, "added.img", 8<<20)
		luns = append(luns, fmt.Sprintf("gotgtd lun add %s %s --lun %d", peer.IQN, image, 10+i))
		want = append(want, image)
	}
	script(luns...)
	script("gotgtd upgrade", "gotgtd upgrade", "gotgtd upgrade")
	all.Wait()

	show := s.show(t)
	for _, w := range want {
		gone := strings.Contains(w, "volume-0")
		if n := strings.Count(show, w); n != 1 && !gone || n != 0 && gone {
			t.Errorf("%q is %d times in:\n%s", w, n, show)
		}
	}
	// The file has what gotgtd's commands have made, and a restart only that.
	s.restart(t)
	for i, target := range strings.Split(s.show(t), "Target ")[1:] {
		if n := strings.Count(target, "Type: disk"); i > 0 || n != 4 {
			t.Errorf("after a restart there is, with %d disks:\n%s", n, target)
		}
	}
}
