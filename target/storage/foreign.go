// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/descriptor"
)

// FormatRaw is the one format that is served: the file's bytes are the blocks.
const FormatRaw = "raw"

// ErrForeign is a file in the format of a hypervisor, whose bytes are not the
// blocks of the disk that is in it.
var ErrForeign = errors.New("not raw blocks")

// A foreign format is told by its magic at an offset. A disk may begin so
// because a guest has written it: see [Options.Known].
type foreign struct {
	name  string // for people
	qemu  string // for qemu-img
	off   int64  // from the end if negative
	magic string
}

var foreigns = []foreign{
	{"qcow", "qcow", 0, "QFI\xfb\x00\x00\x00\x01"},
	{"qcow2", "qcow2", 0, "QFI\xfb"},
	{"VMDK", "vmdk", 0, "KDMV"},
	{"VMDK", "vmdk", 0, "COWD"},
	{"VMDK", "vmdk", 0, "# Disk DescriptorFile"},
	{"VHDX", "vhdx", 0, "vhdxfile"},
	{"VHD", "vpc", 0, "conectix"},
	{"VHD", "vpc", -512, "conectix"}, // of fixed size: raw, with a footer
	{"VDI", "vdi", 64, "\x7f\x10\xda\xbe"},
	{"QED", "qed", 0, "QED\x00"},
	{"Parallels", "parallels", 0, "WithoutFreeSpace"},
	{"Parallels", "parallels", 0, "WithouFreSpacExt"},
}

// checkFormat refuses a file of size bytes that is in a foreign format.
func checkFormat(f io.ReaderAt, path string, size int64) error {
	for _, k := range foreigns {
		off := k.off
		if off < 0 {
			off += size
		}
		b := make([]byte, len(k.magic))
		if off < 0 || off+int64(len(b)) > size {
			continue
		}
		if _, err := f.ReadAt(b, off); err != nil {
			return err
		}
		if bytes.Equal(b, []byte(k.magic)) {
			return fmt.Errorf("it is a %s image, %w: convert it (qemu-img convert -f %s -O raw %q NEW), or give format: raw (bsopts format=raw to tgtadm and in a targets.conf) to serve it as it is",
				k.name, ErrForeign, k.qemu, path)
		}
	}
	return nil
}

// Check finds what speaks against opening the file or device that o names,
// without making or changing anything: another program uses it, it is in a
// foreign format, it would have to shrink. [OpenFile] begins with it. The
// error is an [*Error].
func Check(o Options) error {
	// O_NONBLOCK as in openPath. For a lease the file must not be open for writing here.
	fd, err := unix.Open(o.Path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err == nil {
		f := os.NewFile(uintptr(fd), o.Path)
		defer f.Close()
		err = o.check(f)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT) && o.Create && !o.ReadOnly:
		if err = missing(o.Path); err == nil {
			return nil
		}
	case errors.Is(err, unix.ENOENT) && o.Create:
		err = fmt.Errorf("%w, and a file that is made read-only would stay empty: make it first, or leave read-only out", unix.ENOENT)
	}
	return &Error{Op: "open", Path: o.Path, Err: err}
}

// missing says why no file can be made at a path where there is none.
func missing(path string) error {
	info, err := os.Lstat(path)
	if err == nil && info.Mode().Type() == fs.ModeSymlink {
		return errors.New("it is a symbolic link to a file that is not there, and none is made through a link: make that file, or take the link away")
	}
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("its folder %q is missing, and only a file is made: make the folder first", dir)
	}
	return nil
}

func (o *Options) check(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(descriptor.Number(f), &st); err != nil {
		return err
	}
	size, device := st.Size, st.Mode&unix.S_IFMT == unix.S_IFBLK
	switch {
	case device:
		var err error
		if size, err = deviceSize(descriptor.Number(f)); err != nil {
			return err
		}
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil // prepare says so
	case o.shrinks(size):
		err := fmt.Errorf("it has %s, more than the size of %s, and a file is never shrunk: raise size, or leave it out", bytesText(size), bytesText(o.Size))
		if holeBeyond(descriptor.Number(f), o.Size) {
			err = fmt.Errorf("%w; as nothing was ever written beyond that size, truncate -s %d %q loses nothing", err, o.Size, o.Path)
		}
		return err
	}
	if device || o.ReadOnly {
		if err := o.tooShort(size, o.blockSize(), device); err != nil {
			return err
		}
	}
	if err := o.checkUse(f, &st, device); err != nil {
		return err
	}
	if o.Format == FormatRaw || o.Known != nil && o.Known(o.Path) {
		return nil
	}
	err := checkFormat(f, o.Path, size)
	if errors.Is(err, ErrForeign) && o.served(f, &st) {
		return nil // as raw, whatever its guest has written
	}
	return err
}

// shrinks tells whether a regular file of size bytes is longer than asked for.
func (o *Options) shrinks(size int64) bool { return o.Size != 0 && !o.ReadOnly && size > o.Size }

// bytesText is a size for people, exactly.
func bytesText(n int64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	i, short := 0, n
	for ; i < len(units)-1 && short != 0 && short%1024 == 0; i++ {
		short /= 1024
	}
	if i == 0 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%d %s (%d bytes)", short, units[i], n)
}
