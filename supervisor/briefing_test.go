// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func memoryFile(t *testing.T) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "test")
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// TestBriefing writes longer and shorter briefings over each other: the last
// one is read, to the byte.
func TestBriefing(t *testing.T) {
	b := &briefing{file: memoryFile(t)}
	for _, text := range [][]byte{nil, []byte("one"), bytes.Repeat([]byte{0xa5}, 1<<20), {}, []byte("two"), nil} {
		if err := b.write(text); err != nil {
			t.Fatal(err)
		}
		got, err := readBriefing(b.file)
		if err != nil || !bytes.Equal(got, text) || (got == nil) != (text == nil) {
			t.Errorf("of %d bytes written, %d are read: %v", len(text), len(got), err)
		}
	}
}

// TestForgottenBriefing leaves nothing in memory, nor for the next generation.
func TestForgottenBriefing(t *testing.T) {
	b := &briefing{file: memoryFile(t), text: []byte("a secret")}
	if err := b.write(b.text); err != nil {
		t.Fatal(err)
	}
	if err := b.forget(); err != nil || b.text != nil {
		t.Fatalf("%q is left, %v", b.text, err)
	}
	if info, err := b.file.Stat(); err != nil || info.Size() != 0 {
		t.Errorf("the file has %d bytes, %v", info.Size(), err)
	}
}

func TestDamagedBriefing(t *testing.T) {
	for name, change := range map[string]func(f *os.File) error{
		"another kind": func(f *os.File) error { _, err := f.WriteAt([]byte("x"), 0); return err },
		"EOF":          func(f *os.File) error { return f.Truncate(int64(briefingHeader) + 2) },
		"checksum":     func(f *os.File) error { _, err := f.WriteAt([]byte("x"), int64(briefingHeader)); return err },
	} {
		b := &briefing{file: memoryFile(t)}
		if err := b.write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if err := change(b.file); err != nil {
			t.Fatal(err)
		}
		if text, err := readBriefing(b.file); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: read %q, %v", name, text, err)
		}
	}
}
