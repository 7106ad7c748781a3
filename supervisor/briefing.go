// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// briefingName is the name of the memory file that tableflip carries.
	briefingName = "briefing"

	// A briefing begins with a magic, the length of what follows (8 bytes, big
	// endian) and its CRC-32C (4 bytes).
	briefingMagic  = "sv-brief"
	briefingHeader = len(briefingMagic) + 8 + 4

	// maxBriefing bounds a briefing in bytes.
	maxBriefing = 256 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A briefing is what a generation tells its successor before that has read its
// configuration or said a word. It lies in a memory file that goes from
// generation to generation, and is written anew for each successor. A
// predecessor that knows of no briefings leaves none.
type briefing struct {
	file *os.File
	text []byte // from the predecessor, nil if there is none
}

// takeBriefing takes up the memory file and what is in it, or makes the file.
// A briefing that can't be read is an error: it is there for a reason.
func takeBriefing(u upgrader) (*briefing, error) {
	var file *os.File
	var err error
	if u.HasParent() {
		if file, err = u.File(briefingName); err != nil {
			return nil, fmt.Errorf("can't take up the briefing: %w", err)
		}
	}
	if file != nil {
		b := &briefing{file: file}
		if b.text, err = readBriefing(file); err != nil {
			_ = file.Close()
			return nil, fmt.Errorf("can't read the predecessor's briefing: %w", err)
		}
		return b, nil
	}
	fd, err := unix.MemfdCreate(briefingName, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("can't make the briefing: %w", err)
	}
	file = os.NewFile(uintptr(fd), briefingName)
	if err := u.AddFile(briefingName, file); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("can't make the briefing: %w", err)
	}
	return &briefing{file: file}, nil
}

func readBriefing(f io.ReaderAt) ([]byte, error) {
	header := make([]byte, briefingHeader)
	n, err := f.ReadAt(header, 0)
	if n == 0 && errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint64(header[len(briefingMagic):])
	if string(header[:len(briefingMagic)]) != briefingMagic || size > maxBriefing {
		return nil, errors.New("it is of another kind")
	}
	text := make([]byte, size)
	if _, err := f.ReadAt(text, int64(briefingHeader)); err != nil {
		return nil, err
	}
	if crc32.Checksum(text, castagnoli) != binary.BigEndian.Uint32(header[briefingHeader-4:]) {
		return nil, errors.New("its checksum is wrong")
	}
	return text, nil
}

// write puts a briefing for the next successor in place of what is there.
func (b *briefing) write(text []byte) error {
	if len(text) > maxBriefing {
		return fmt.Errorf("can't brief the successor: %d bytes are more than %d", len(text), maxBriefing)
	}
	if err := b.file.Truncate(0); err != nil {
		return fmt.Errorf("can't brief the successor: %w", err)
	}
	if text == nil {
		return nil
	}
	all := append(make([]byte, 0, briefingHeader+len(text)), briefingMagic...)
	all = binary.BigEndian.AppendUint64(all, uint64(len(text)))
	all = binary.BigEndian.AppendUint32(all, crc32.Checksum(text, castagnoli))
	if _, err := b.file.WriteAt(append(all, text...), 0); err != nil {
		return fmt.Errorf("can't brief the successor: %w", err)
	}
	return nil
}

// forget lets go of what the predecessor has left, in the memory file too.
func (b *briefing) forget() error {
	b.text = nil
	return b.write(nil)
}

func (b *briefing) close() { _ = b.file.Close() }
