// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/target/storage"
)

// TestForeignFormats looks at headers as the formats' specifications have them.
func TestForeignFormats(t *testing.T) {
	at := func(off int, s string) []byte {
		b := make([]byte, 1<<20)
		copy(b[off:], s)
		return b
	}
	for _, test := range []struct {
		name, qemu string
		content    []byte
	}{
		{"qcow", "qcow", at(0, "QFI\xfb\x00\x00\x00\x01")},
		{"qcow2", "qcow2", at(0, "QFI\xfb\x00\x00\x00\x02")},
		{"qcow2", "qcow2", at(0, "QFI\xfb\x00\x00\x00\x03")},
		{"VMDK", "vmdk", at(0, "KDMV\x01\x00\x00\x00")},
		{"VMDK", "vmdk", at(0, "COWD\x01\x00\x00\x00")},
		{"VMDK", "vmdk", at(0, "# Disk DescriptorFile\nversion=1\n")},
		{"VHD", "vpc", at(0, "conectix\x00\x00\x00\x02")},
		{"VHD", "vpc", at(1<<20-512, "conectix\x00\x00\x00\x02")},
		{"VHDX", "vhdx", at(0, "vhdxfile")},
		{"VDI", "vdi", at(0, "<<< Oracle VM VirtualBox Disk Image >>>\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x7f\x10\xda\xbe")},
		{"QED", "qed", at(0, "QED\x00")},
		{"Parallels", "parallels", at(0, "WithoutFreeSpace\x02")},
		{"Parallels", "parallels", at(0, "WithouFreSpacExt\x02")},
		{"", "", at(0, "LUKS\xba\xbe\x00\x02")},
		{"", "", at(32769, "CD001")},
		{"", "", at(510, "\x55\xaa")},
		{"", "", at(0, "QFI")},
		{"", "", at(512, "QFI\xfb\x00\x00\x00\x03")},
	} {
		path := newPath(t)
		if err := os.WriteFile(path, test.content, 0o600); err != nil {
			t.Fatal(err)
		}
		checkForeign(t, path, test.name, test.qemu)
	}
}

// checkForeign opens a file in a format, none if name is empty, in the ways in
// which that goes and in which it does not.
func checkForeign(t *testing.T, path, name, qemu string) {
	t.Helper()
	s, err := storage.OpenFile(storage.Options{Path: path})
	if name == "" {
		if err != nil {
			t.Error(err)
			return
		}
		s.Close()
		return
	}
	if !errors.Is(err, storage.ErrForeign) || !strings.Contains(err.Error(), "a "+name+" image") ||
		!strings.Contains(err.Error(), "qemu-img convert -f "+qemu+" -O raw") || !strings.Contains(err.Error(), "format: raw") {
		t.Errorf("%s: %v", name, err)
	}
	for _, o := range []storage.Options{
		{Format: storage.FormatRaw},
		{Known: func(p string) bool { return p == path }},
	} {
		o.Path = path
		s, err := storage.OpenFile(o)
		size, _ := stat(t, path)
		switch {
		case size < 512 && err != nil && strings.Contains(err.Error(), "it holds no block of 512 bytes"): // a VMDK that names others
		case err != nil:
			t.Errorf("%s: %v", name, err)
		default:
			s.Close()
		}
	}
}

// TestForeignImages looks at images that QEMU has made, where qemu-img is.
func TestForeignImages(t *testing.T) {
	qemu, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Log("no qemu-img: the headers above stand for its images")
		return
	}
	for _, test := range []struct{ format, name, options string }{
		{"qcow2", "qcow2", ""}, {"qcow2", "qcow2", "compat=0.10"}, {"qcow2", "qcow2", "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10"}, {"qcow", "qcow", ""},
		{"vmdk", "VMDK", ""}, {"vmdk", "VMDK", "subformat=streamOptimized"}, {"vmdk", "VMDK", "subformat=monolithicFlat"}, {"vmdk", "VMDK", "subformat=twoGbMaxExtentSparse"},
		{"vpc", "VHD", "subformat=dynamic"}, {"vpc", "VHD", "subformat=fixed"}, {"vhdx", "VHDX", ""}, {"vhdx", "VHDX", "subformat=fixed"},
		{"vdi", "VDI", ""}, {"qed", "QED", ""}, {"parallels", "Parallels", ""}, {"raw", "", ""},
		{"luks", "", "key-secret=key,iter-time=10"}, // raw blocks to gotgtd: a guest encrypts its disk so
	} {
		path := newPath(t)
		args := []string{"create", "-q", "--object", "secret,id=key,data=secret", "-f", test.format}
		if test.options != "" {
			args = append(args, "-o", test.options)
		}
		if out, err := exec.CommandContext(t.Context(), qemu, append(args, path, "4M")...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", test.format, err, out)
			continue
		}
		checkForeign(t, path, test.name, test.format)
	}
}
