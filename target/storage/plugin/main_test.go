// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"flag"
	"fmt"
	"sync"
	"testing"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi"
	"go.uber.org/goleak"

	"github.com/gotgtd/gotgtd/target/storage"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// The conformance suite runs over many plug-ins here.
	if err := flag.Set("rapid.checks", "20"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// memory is a plug-in that holds blocks in memory. As gotgt allows, it keeps
// the slices that Write gets, and lets Read return what it keeps. Hooks replace
// what it does by itself.
type memory struct {
	mu     sync.Mutex
	blocks map[int64][]byte
	size   uint64
	calls  []string

	onOpen  func() error
	onRead  func(off, n int64) ([]byte, error)
	onWrite func(p []byte, off int64) error
	onUnmap func([]api.UnmapBlockDescriptor) error
	onSync  func() error
	onClose func() error
	onSize  func() uint64
}

const memoryBlock = 512

func newMemory(size uint64) *memory { return &memory{blocks: map[int64][]byte{}, size: size} }

// register registers the plug-in under a name of its own, for Open.
func (m *memory) register(t *testing.T) string {
	t.Helper()
	scsi.RegisterBackingStore(t.Name(), func() (api.BackingStore, error) { return m, nil })
	return t.Name()
}

func (m *memory) called(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.calls) < 1000 {
		m.calls = append(m.calls, fmt.Sprintf(format, args...))
	}
}

func (m *memory) Open(_ *api.SCSILu, path string) error {
	m.called("open %s", path)
	if m.onOpen != nil {
		return m.onOpen()
	}
	return nil
}

func (m *memory) Close(*api.SCSILu) error {
	m.called("close")
	if m.onClose != nil {
		return m.onClose()
	}
	return nil
}

func (m *memory) Init(_ *api.SCSILu, opts string) error {
	m.called("init %s", opts)
	return nil
}

func (m *memory) Exit(*api.SCSILu) error {
	m.called("exit")
	return nil
}

func (m *memory) Size(*api.SCSILu) uint64 {
	if m.onSize != nil {
		return m.onSize()
	}
	return m.size
}

func (m *memory) Read(off, n int64) ([]byte, error) {
	if m.onRead != nil {
		return m.onRead(off, n)
	}
	return m.read(off, n), nil
}

func (m *memory) read(off, n int64) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n == memoryBlock && m.blocks[off] != nil {
		return m.blocks[off]
	}
	p := make([]byte, n)
	for i := int64(0); i < n; i += memoryBlock {
		copy(p[i:], m.blocks[off+i])
	}
	return p
}

func (m *memory) Write(p []byte, off int64) error {
	if m.onWrite != nil {
		return m.onWrite(p, off)
	}
	m.write(p, off)
	return nil
}

func (m *memory) write(p []byte, off int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := int64(0); i < int64(len(p)); i += memoryBlock {
		m.blocks[off+i] = p[i:][:memoryBlock]
	}
}

func (m *memory) DataSync(int64, int64) error {
	m.called("sync")
	if m.onSync != nil {
		return m.onSync()
	}
	return nil
}

func (m *memory) DataAdvise(int64, int64, uint32) error { return nil }

func (m *memory) Unmap(list []api.UnmapBlockDescriptor) error {
	for _, d := range list {
		m.called("unmap %d %d", d.Offset, d.TL)
	}
	if m.onUnmap != nil {
		return m.onUnmap(list)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range list {
		for i := d.Offset; i < d.Offset+uint64(d.TL); i += memoryBlock {
			delete(m.blocks, int64(i))
		}
	}
	return nil
}

// open opens a plug-in and closes it at the end of the test.
func open(t *testing.T, o Options) storage.Store {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
