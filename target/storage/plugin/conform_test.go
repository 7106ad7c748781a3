// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi"

	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

// suite runs the conformance suite over what make makes.
func suite(t *testing.T, make func() (storage.Store, error)) {
	t.Helper()
	storagetest.TestStore(t, func() storage.Store {
		s, err := make()
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestMemoryPluginConforms(t *testing.T) {
	for _, o := range []Options{{}, {Options: storage.Options{BlockOptions: storage.BlockOptions{Thin: new(true)}}}, {Options: storage.Options{BlockOptions: storage.BlockOptions{BlockSize: 4096}}}} {
		suite(t, func() (storage.Store, error) {
			o.Name = newMemory(storagetest.MinSize + 512).register(t)
			return Open(o)
		})
	}
}

// A plug-in whose Unmap does nothing must not make a store that keeps what was
// discarded.
func TestIdleUnmapConforms(t *testing.T) {
	suite(t, func() (storage.Store, error) {
		m := newMemory(storagetest.MinSize)
		m.onUnmap = func([]api.UnmapBlockDescriptor) error { return nil }
		return Open(Options{Name: m.register(t), Options: storage.Options{BlockOptions: storage.BlockOptions{Thin: new(true)}}})
	})
}

// newDisk returns the path of a new file of MinSize bytes.
func newDisk(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, make([]byte, storagetest.MinSize), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestGotgtFileConforms(t *testing.T) {
	storagetest.TestDriver(t, "gotgt:file", storage.Options{Path: newDisk(t)})
	suite(t, func() (storage.Store, error) {
		return Open(Options{Name: "file", Options: storage.Options{Path: newDisk(t), BlockOptions: storage.BlockOptions{Thin: new(true)}}})
	})
}

// openMapped puts a plug-in into a logical unit as gotgt does, and wraps that.
func openMapped(bs api.BackingStore, path string) (storage.Store, error) {
	lu := &api.SCSILu{Storage: bs, BlockShift: 9}
	if err := bs.Open(lu, path); err != nil {
		return nil, err
	}
	lu.Size = bs.Size(lu)
	lu.Attrs.ThinProvisioning = true
	return Wrap(lu, Options{Name: "mapped", Options: storage.Options{Path: path}})
}

func TestWrappedPluginConforms(t *testing.T) {
	suite(t, func() (storage.Store, error) { return openMapped(newMemory(storagetest.MinSize), "x") })
}

// openFile opens a store of this project for a gotgt program.
func openFile(path string) (storage.Store, error) {
	return storage.OpenFile(storage.Options{Path: path})
}

// there and back hides a plug-in's type, so that it is not recognised as a
// store of this project.
type thereAndBack struct{ api.BackingStore }

func TestOwnStoresConformAsPlugins(t *testing.T) {
	make := BackingStore(openFile)
	suite(t, func() (storage.Store, error) {
		bs, err := make()
		if err != nil {
			return nil, err
		}
		scsi.RegisterBackingStore(t.Name(), func() (api.BackingStore, error) { return thereAndBack{bs}, nil })
		return Open(Options{Name: t.Name(), Options: storage.Options{Path: newDisk(t), BlockOptions: storage.BlockOptions{Thin: new(true)}}})
	})
}

func TestOwnStoresAreRecognised(t *testing.T) {
	scsi.RegisterBackingStore(t.Name(), BackingStore(openFile))
	opened, err := Open(Options{Name: t.Name(), Options: storage.Options{Path: newDisk(t)}})
	if err != nil {
		t.Fatal(err)
	}
	bs, err := scsi.NewBackingStore(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	mapped, err := openMapped(bs, newDisk(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []storage.Store{opened, mapped} {
		if ok := storage.Can(s).Locked != nil; !ok {
			t.Errorf("the file is a %T now", s)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
