// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"syscall"
	"testing"

	"github.com/gostor/gotgt/pkg/api"

	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

// plain has no optional interfaces.
type plain struct{ storage.Store }

func TestBackingStore(t *testing.T) {
	fault := storagetest.NewFaultStore(storagetest.NewRAM(mib))
	bs, err := BackingStore(func(path string) (storage.Store, error) {
		if path != "x" {
			return nil, syscall.ENOENT
		}
		return fault, nil
	})()
	if err != nil {
		t.Fatal(err)
	}
	if err := bs.Open(nil, "y"); !errors.Is(err, syscall.ENOENT) || bs.Size(nil) != 0 {
		t.Errorf("opening nothing: %v, size %d", err, bs.Size(nil))
	}
	if _, err := bs.Read(0, 512); err != fs.ErrClosed {
		t.Errorf("reading before Open: %v", err)
	}
	if err := errors.Join(bs.Open(nil, "x"), bs.Init(nil, "")); err != nil || bs.Size(nil) != mib {
		t.Errorf("Open: %v, size %d", err, bs.Size(nil))
	}
	if bs.Open(nil, "x") == nil {
		t.Error("a plug-in opens twice")
	}
	want := bytes.Repeat([]byte{5}, 4096)
	if err := errors.Join(bs.Write(want, mib-4096), bs.DataSync(0, 4096), bs.DataAdvise(0, 4096, 3)); err != nil {
		t.Error(err)
	}
	if p, err := bs.Read(mib-4096, 4096); err != nil || !bytes.Equal(p, want) {
		t.Errorf("Read: %v", err)
	}
	for _, n := range []int64{-1, mib + 1, 1 << 62} {
		if p, err := bs.Read(0, n); err == nil {
			t.Errorf("reading %d bytes = %d", n, len(p))
		}
	}
	if _, err := bs.Read(mib-512, 1024); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("reading past the end: %v", err)
	}
	if err := bs.Unmap([]api.UnmapBlockDescriptor{{Offset: mib - 4096, TL: 512}, {Offset: mib - 512, TL: 512}}); err != nil {
		t.Error(err)
	}
	clear(want[:512])
	clear(want[4096-512:])
	if p, err := bs.Read(mib-4096, 4096); err != nil || !bytes.Equal(p, want) {
		t.Errorf("after Unmap: %v", err)
	}
	fault.Inject(storagetest.Fault{Op: storagetest.Flush, Err: syscall.EIO})
	if err := bs.Close(nil); !errors.Is(err, syscall.EIO) {
		t.Errorf("Close: %v", err)
	}
	if err := errors.Join(bs.Close(nil), bs.Exit(nil)); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Close again: %v", err)
	}
}

func TestUnmapWithoutDiscard(t *testing.T) {
	make := BackingStore(func(string) (storage.Store, error) { return plain{storagetest.NewRAM(mib)}, nil })
	bs, err := make()
	if err == nil {
		err = bs.Open(nil, "")
	}
	if err != nil {
		t.Fatal(err)
	}
	if bs.Unmap([]api.UnmapBlockDescriptor{{TL: 512}}) == nil {
		t.Error("what can't be done is done")
	}
}
