// SPDX-License-Identifier: Apache-2.0

package reservation

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fxamacker/cbor/v2"

	"github.com/gotgtd/gotgtd/internal/replace"
)

// The file begins with magic and version, 8 and 4 bytes, then the length of
// the payload in 4 bytes, the payload (a Snapshot in CBOR) and the CRC-32C of
// all that. Numbers are big endian.
const (
	fileMagic   = "gotgtdPR"
	fileVersion = 1
	fileHeader  = len(fileMagic) + 4 + 4
	fileTrailer = 4
	// maxFile is more than MaxRegistrations of the longest names need.
	maxFile = 1 << 20
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	encoder = must(cbor.CoreDetEncOptions().EncMode())
	decoder = must(cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
		MaxArrayElements: MaxRegistrations,
		UTF8:             cbor.UTF8DecodeInvalid, // in names, which are checked themselves
	}.DecMode())
)

// must returns v; the error of a fixed mode is a mistake in this file.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// file keeps a Snapshot on disk. What is at path is always a whole one, the
// last that save has returned nil for. No file is the empty Snapshot, and so is one that is damaged.
type file struct {
	path    string
	disk    disk
	image   []byte   // what is at path, nil for no file
	lost    bool     // what is at path is uncertain: the last put has failed
	damage  error    // why what is at path can't be read, nil if it can
	dropped []string // initiators that the last load has left out, since they have no iSCSI names
}

// load returns what the file holds, nothing if it is damaged.
func (f *file) load() Snapshot {
	var s Snapshot
	image, err := f.disk.read(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		image, err = nil, nil
	case err == nil:
		s, err = decodeFile(image)
	}
	f.image, f.lost, f.damage, f.dropped = image, false, nil, nil
	if err != nil {
		f.image, f.damage = nil, fmt.Errorf("can't load reservations from %q: %w", f.path, err)
		return Snapshot{}
	}
	s, f.dropped = s.withoutUnnamed()
	return s
}

// save puts s on the disk if it asks for that with APTPL, and otherwise takes
// away what is there, unless it is damaged. On an error what was there before is there
// still, or is put back if the disk lets it. What load would not read is not written.
func (f *file) save(s Snapshot) error {
	var image []byte
	if s.APTPL {
		if err := s.validate(); err != nil {
			return fmt.Errorf("can't save reservations to %q: %w", f.path, err)
		}
		image = encodeFile(s)
	}
	if f.damage != nil {
		if image == nil {
			return nil
		}
		if err := f.setAside(); err != nil {
			return err
		}
	}
	if !f.lost && bytes.Equal(image, f.image) {
		return nil
	}
	if err := f.put(image); err != nil {
		back := f.put(f.image)
		f.lost = back != nil
		return fmt.Errorf("can't save reservations to %q: %w", f.path, errors.Join(err, back))
	}
	f.image, f.lost = image, false
	return nil
}

// setAside renames a damaged file, so that another can take its place.
func (f *file) setAside() error {
	// Another process that serves the logical unit may have been faster.
	if err := f.disk.rename(f.path, f.path+".damaged"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("can't set damaged reservations aside: %w", err)
	}
	f.damage = nil
	return nil
}

// put makes image the content of the file, nil for no file, so that a crash
// leaves either what was there or image.
func (f *file) put(image []byte) error {
	if image == nil {
		if err := f.disk.remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return f.disk.syncDir(filepath.Dir(f.path))
	}
	temporary := f.path + ".tmp"
	if err := f.disk.write(temporary, image); err != nil {
		return err
	}
	if err := f.disk.rename(temporary, f.path); err != nil {
		return err
	}
	return f.disk.syncDir(filepath.Dir(f.path))
}

// encodeFile returns s as the content of a file.
func encodeFile(s Snapshot) []byte { return frame(must(encoder.Marshal(s))) }

// frame puts header and trailer around payload.
func frame(payload []byte) []byte {
	b := append([]byte(nil), fileMagic...)
	b = binary.BigEndian.AppendUint32(b, fileVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = append(b, payload...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeFile returns what the content of a file says, which is valid but for names that earlier
// versions let initiators have.
func decodeFile(b []byte) (Snapshot, error) {
	if len(b) < fileHeader+fileTrailer || string(b[:len(fileMagic)]) != fileMagic {
		return Snapshot{}, errors.New("not a file of reservations, or cut short")
	}
	if v := binary.BigEndian.Uint32(b[len(fileMagic):]); v != fileVersion {
		return Snapshot{}, fmt.Errorf("version %d, want %d", v, fileVersion)
	}
	length := binary.BigEndian.Uint32(b[len(fileMagic)+4:])
	if uint64(length) != uint64(len(b)-fileHeader-fileTrailer) {
		return Snapshot{}, fmt.Errorf("%d bytes, want %d", len(b), uint64(length)+uint64(fileHeader+fileTrailer))
	}
	end := len(b) - fileTrailer
	if binary.BigEndian.Uint32(b[end:]) != crc32.Checksum(b[:end], castagnoli) {
		return Snapshot{}, errors.New("wrong checksum")
	}
	var s Snapshot
	if err := decoder.Unmarshal(b[fileHeader:end], &s); err != nil {
		return Snapshot{}, err
	}
	if s.Reserved != nil {
		return Snapshot{}, errors.New("an SPC-2 reservation, which does not persist")
	}
	named, _ := s.withoutUnnamed()
	return s, named.validate()
}

// disk is what the operating system does for a file.
type disk struct {
	// read returns the whole file, of at most maxFile bytes.
	read func(path string) ([]byte, error)
	// write makes content the whole file, on stable storage.
	write func(path string, content []byte) error
	// rename and remove happen whole or not at all, even in a crash.
	rename func(from, to string) error
	remove func(path string) error
	// syncDir makes renames and removals in the directory durable.
	syncDir func(path string) error
}

// realDisk is the operating system's.
var realDisk = disk{
	read:    readFile,
	write:   writeFile,
	rename:  os.Rename,
	remove:  os.Remove,
	syncDir: replace.SyncFolder,
}

func readFile(path string) ([]byte, error) {
	f, err := replace.ReadPrivate(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("more than %d bytes", maxFile)
	}
	return b, err
}

func writeFile(path string, content []byte) error {
	f, err := replace.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
