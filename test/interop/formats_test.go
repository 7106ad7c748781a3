// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/test/peer"
)

// TestFormats adds images of all formats that qemu-img makes to a target: those whose
// bytes are not the disk's are refused by name, unless they are to be served as they are.
func TestFormats(t *testing.T) {
	t.Parallel()
	s := startTools(t)
	for i, image := range []struct{ name, format, options string }{ // no name: fine as it is
		{"qcow2", "qcow2", ""}, {"VMDK", "vmdk", ""}, {"VHD", "vpc", ""}, {"VHD", "vpc", "subformat=fixed"}, {"VHDX", "vhdx", ""},
		{"QED", "qed", ""}, {"VDI", "vdi", ""}, {"Parallels", "parallels", ""}, {"", "luks", "key-secret=key,iter-time=10"}, {"", "raw", ""}, {"", "iso", ""},
	} {
		path := filepath.Join(t.TempDir(), "image."+image.format)
		makeImage(t, path, image.format, image.options)
		before := readFile(t, path)
		lun := i + 2
		add := []string{"--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", fmt.Sprint(lun), "-b", path}
		out, code := s.run(t, nil, "tgtadm", add...)
		if image.name != "" {
			for _, want := range []string{"tgtadm: invalid request\n(", path, "it is a " + image.name + " image", "qemu-img convert -f " + image.format, "format: raw", "bsopts format=raw"} {
				if code != 22 || !strings.Contains(out, want) {
					t.Errorf("%s: exit status %d, %q is not in:\n%s", image.format, code, want, out)
				}
			}
			out, code = s.run(t, nil, "tgtadm", append(add, "--bsopts", "format=raw")...)
		}
		if code != 0 {
			t.Errorf("%s: exit status %d\n%s", image.format, code, out)
			continue
		}
		// Its bytes are the blocks, as far as there are whole ones.
		back := filepath.Join(t.TempDir(), "back.img")
		must(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", peer.URL(s.gotgtd.Portals()[0], peer.IQN, lun), back)
		if !bytes.Equal(readFile(t, back), before[:len(before)/512*512]) || !bytes.Equal(readFile(t, path), before) {
			t.Errorf("%s: not served byte by byte", image.format)
		}
	}
	// They are served on after a reload.
	show := s.show(t)
	s.gotgtctl(t, "upgrade")
	if again := s.show(t); again != show {
		t.Errorf("after a reload:\n%s\nwant\n%s", again, show)
	}
}

// makeImage makes an image of 4 MiB.
func makeImage(t *testing.T, path, format, options string) {
	t.Helper()
	if format != "iso" {
		args := []string{"create", "-q", "--object", "secret,id=key,data=secret", "-f", format}
		if options != "" {
			args = append(args, "-o", options)
		}
		must(t, "qemu-img", append(args, path, "4M")...)
		return
	}
	// The volume descriptors of ISO 9660: a primary one, and the end of the set.
	b := make([]byte, 4<<20)
	copy(b[16*2048:], "\x01CD001\x01")
	copy(b[17*2048:], "\xffCD001\x01")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
