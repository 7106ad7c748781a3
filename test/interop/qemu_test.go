// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/gotgtd/gotgtd/test/peer"
)

// qemuImage names a logical unit for QEMU's --image-opts. The initiator's name
// tells two QEMUs apart.
func qemuImage(portal, initiator, more string) string {
	return fmt.Sprintf("driver=raw,file.driver=iscsi,file.transport=tcp,file.portal=%s,file.target=%s,file.lun=1,file.initiator-name=%s%s",
		portal, peer.IQN, initiator, more)
}

// qemuIO runs qemu-io commands on an image given as --image-opts.
func qemuIO(t *testing.T, image string, commands ...string) {
	t.Helper()
	args := []string{"--image-opts"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	must(t, "qemu-io", append(args, image)...)
}

// TestConvert writes a qcow2 image into the logical unit, reads it back and
// compares it, byte by byte, also with what is in the target's file.
func TestConvert(t *testing.T) {
	t.Parallel()
	const size = 192 << 20
	_, urls, file := startDisk(t, size, 1, "")
	raw := scattered(t, size)
	qcow := filepath.Join(t.TempDir(), "image.qcow2")
	must(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow)
	must(t, "qemu-img", "convert", "-n", "-f", "qcow2", "-O", "raw", qcow, urls[0])
	back := filepath.Join(t.TempDir(), "back.img")
	must(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", urls[0], back)
	same(t, raw, back)
	same(t, raw, file)
	must(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", raw, urls[0])
}

// scattered makes a file with runs of random bytes and holes of random lengths.
func scattered(t *testing.T, size int64) string {
	t.Helper()
	path := sparse(t, "scattered.img", size)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	random := rand.New(rand.NewPCG(1, 2))
	noise := rand.NewChaCha8([32]byte{3})
	buf := make([]byte, 1<<20)
	for at := int64(0); at < size; at += random.Int64N(2 << 20) {
		n := min(random.Int64N(int64(len(buf)))+1, size-at)
		noise.Read(buf[:n])
		if _, err := f.WriteAt(buf[:n], at); err != nil {
			t.Fatal(err)
		}
		at += n
	}
	return path
}

// same compares two files.
func same(t *testing.T, want, got string) {
	t.Helper()
	a, err := os.Open(want)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := os.Open(got)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	x, y := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); ; at += int64(len(x)) {
		n, errA := io.ReadFull(a, x)
		m, errB := io.ReadFull(b, y)
		if n != m || !bytes.Equal(x[:n], y[:m]) {
			t.Fatalf("%s and %s differ in the MiB at %d", want, got, at)
		}
		if errA != nil || errB != nil {
			if errA != errB {
				t.Fatalf("%s ends with %v, %s with %v", want, errA, got, errB)
			}
			return
		}
	}
}

// TestPatterns writes patterns with and without FUA and reads them back after
// flushes, discards and zeroing, in a second session as well. It does so with the data path's shortcuts where
// they pay, wherever they are possible, and nowhere.
func TestPatterns(t *testing.T) {
	peer.Need(t, "qemu-io")
	for _, when := range append([]string{"auto"}, fastPaths...) {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			testPatterns(t, when)
		})
	}
}

func testPatterns(t *testing.T, fastPaths string) {
	target, _, file := startDiskWith(t, 64<<20, thin, peer.Options{Env: []string{"GOTGTD_FAST_PATHS=" + fastPaths}})
	for _, tc := range []struct{ name, more string }{
		{"plain", ""},
		{"header digest", ",file.header-digest=crc32c"},
		{"written through", ",cache.direct=on"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			image := qemuImage(target.Portals()[0], "iqn.2026-01.test:patterns", tc.more)
			qemuIO(t, image,
				"write -P 0x11 0 1M", "write -f -P 0x22 1M 1M", "write -f -P 0x33 2M 512", "flush",
				"write -P 0x44 3M 13k", "write -z 4M 1M", "write -P 0x55 4M 4k",
				"read -P 0x11 0 1M", "read -P 0x22 1M 1M", "read -P 0x33 2M 512",
				"read -P 0x44 3M 13k", "read -P 0x55 4M 4k", "read -P 0 4100k 1020k",
				"aio_write -P 0x66 8M 4M", "aio_write -P 0x77 12M 4M", "aio_write -f -P 0x88 16M 4M", "aio_flush",
				"aio_read -P 0x66 8M 4M", "aio_read -P 0x77 12M 4M", "aio_read -P 0x88 16M 4M", "aio_flush",
				"discard 8M 4M", "flush", "read -P 0x77 12M 4M")
			qemuIO(t, image, "read -P 0x22 1M 1M", "read -P 0 8M 4M", "read -P 0x88 16M 4M")
		})
	}
	// What was flushed is in the file, and what was discarded takes no room.
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(data[1<<20:2<<20], bytes.Repeat([]byte{0x22}, 1<<20)) {
		t.Error("the file does not hold what was written with FUA")
	}
	if used := allocated(t, file); used > 24<<20 {
		t.Errorf("the file takes %d bytes after the discard: no hole was punched", used)
	}
}

// TestPatternsAreReallyRead shows that the pattern tests can fail.
func TestPatternsAreReallyRead(t *testing.T) {
	t.Parallel()
	target, _, _ := startDisk(t, 16<<20, 1, "")
	image := qemuImage(target.Portals()[0], "iqn.2026-01.test:patterns", "")
	out := refuses(t, "qemu-io", "--image-opts", "-c", "write -P 1 0 4k", "-c", "read -P 2 0 4k", image)
	contains(t, out, "Pattern verification failed")
}

// TestBlocksOf4096 serves a disk with 4096 byte blocks.
func TestBlocksOf4096(t *testing.T) {
	t.Parallel()
	target, urls, _ := startDisk(t, 64<<20, 1, "block-size 4096")
	contains(t, must(t, "iscsi-readcapacity16", urls[0]),
		"LOGICAL BLOCK LENGTH IN BYTES:4096", "RETURNED LOGICAL BLOCK ADDRESS:16383")
	image := qemuImage(target.Portals()[0], "iqn.2026-01.test:4k", "")
	qemuIO(t, image, "write -P 0x11 0 1M", "write -P 0x22 4k 4k", "flush", "read -P 0x11 0 4k", "read -P 0x22 4k 4k")
}

// TestFileSystem puts an ext4 file system on the logical unit while another
// initiator writes heavily beside it, again and again with more in it, and reads
// it back each time: fsck finds nothing and every file is there.
func TestFileSystem(t *testing.T) {
	t.Parallel()
	peer.Need(t, "qemu-img", "/usr/sbin/mke2fs")
	const half = 96 << 20
	target, _, _ := startDisk(t, 2*half, 1, "")
	portal := target.Portals()[0]
	tree := t.TempDir()
	noise := rand.NewChaCha8([32]byte{7})
	window := func(offset int64) string {
		return qemuImage(portal, "iqn.2026-01.test:fs", fmt.Sprintf(",offset=%d,size=%d", offset, half))
	}
	for round := range 4 {
		grow(t, tree, round, noise)
		image := sparse(t, "ext4.img", half)
		must(t, "/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, image)

		beside := make(chan error, 1)
		go func() {
			_, err := peer.Run(t.Context(), "qemu-img", "bench", "--image-opts", "-w", "-c", "4000", "-d", "16",
				"-s", "16384", "--pattern", fmt.Sprint(round+1), "--flush-interval", "256", window(half))
			beside <- err
		}()
		_, err := peer.Run(t.Context(), "qemu-img", "convert", "-n", "--target-image-opts", "-f", "raw", image, window(0))
		if besideErr := <-beside; err != nil || besideErr != nil {
			t.Fatalf("copying in: %v; writing beside it: %v", err, besideErr)
		}

		back := filepath.Join(t.TempDir(), "back.img")
		must(t, "qemu-img", "convert", "--image-opts", "-O", "raw", window(0), back)
		must(t, "/usr/sbin/e2fsck", "-f", "-n", back)
		same(t, image, back)
		out := filepath.Join(t.TempDir(), "out")
		must(t, "/usr/sbin/debugfs", "-R", fmt.Sprintf("dump /round-%d/file-7 %s", round, out), back)
		same(t, filepath.Join(tree, fmt.Sprintf("round-%d", round), "file-7"), out)
	}
}

// grow adds a folder of random files to the tree.
func grow(t *testing.T, tree string, round int, noise io.Reader) {
	t.Helper()
	dir := filepath.Join(tree, fmt.Sprintf("round-%d", round))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		data := make([]byte, i*9000)
		if _, err := io.ReadFull(noise, data); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%d", i)), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
