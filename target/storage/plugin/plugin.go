// SPDX-License-Identifier: Apache-2.0

// Package plugin lets plug-ins written for gotgt hold the blocks of a logical
// unit, and the stores of this project be plug-ins of a program that embeds
// gotgt.
//
// gotgt's interface (api.BackingStore, v0.2.2) says little about itself. What
// its own SCSI layer does with a plug-in, and what is therefore taken for
// granted here:
//
//   - Offsets and lengths are bytes, also those of Unmap.
//   - Calls come from several goroutines, one for each connection. Here they
//     come from all workers, so that a single session makes several at a time.
//   - Each Write gets a buffer of its own, which the plug-in may keep. Here it
//     gets a copy, unless the plug-in is one of gotgt's own, which keep nothing.
//   - A Read may return io.EOF, and less than was asked for; gotgt fills up with
//     zeros. Here the rest is asked for, and what can't be had is an error,
//     unless Options.PadReads says otherwise.
//   - Init and Exit are never called by gotgt. Here they are if there are options.
//   - Unmap is always there and tells nothing of what it does.
//
// A plug-in holds nothing back from another process that has opened the same
// path, once DataSync has returned: that is what an upgrade relies on.
//
// A panic of a plug-in is an error of the call, a [PanicError]. What can't be
// contained is a panic in a goroutine that the plug-in started itself, an end
// of the calling goroutine (runtime.Goexit), and what the Go runtime does not
// let anyone recover from, such as concurrent writes to a map.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi"

	"github.com/gotgtd/gotgtd/target/storage"
)

// Options say which plug-in to open and how to treat it. Of a store's options those count that are not about
// a file: Path is what the plug-in opens, Size that of a store whose plug-in says 0, and Parameters are passed to
// the plug-in's Init, as tgt passes its bsopts: "name=value", joined by semicolons, sorted by name. The block
// size may be any power of two.
//
// Thin lets the store discard, by the plug-in's Unmap. What does not read as zeros after an Unmap is overwritten
// with zeros. The plug-ins that come with gotgt v0.2.2 ignore Unmap, so Thin has no effect on them.
type Options struct {
	Name string // as registered with gotgt's scsi.RegisterBackingStore
	storage.Options

	// PadReads fills up short reads with zeros, as gotgt does. It is always so
	// with gotgt's null store, all of which is missing.
	PadReads bool
}

// Registered returns an error if no plug-in is registered under name, or if
// that one can't be made.
func Registered(name string) error {
	_, err := newBackingStore(name)
	return err
}

func newBackingStore(name string) (bs api.BackingStore, err error) {
	if name == "" {
		return nil, errors.New("a plug-in needs a name")
	}
	err = contained(func() (err error) {
		bs, err = scsi.NewBackingStore(name)
		return err
	})
	if err == nil && bs == nil {
		err = errors.New("it makes nothing")
	}
	if err != nil {
		return nil, fmt.Errorf("can't make the gotgt plug-in %q: %w", name, err)
	}
	return bs, nil
}

// Open makes a store of the plug-in that o.Name names and opens it. Every error
// of the store itself is a [*storage.Error]. A plug-in that is a store of this
// project ([BackingStore]) is returned as that store.
func Open(o Options) (storage.Store, error) {
	bs, err := newBackingStore(o.Name)
	if err != nil {
		return nil, err
	}
	s := newStore(bs, &api.SCSILu{Path: o.Path, Storage: bs}, &o)
	s.lu.BlockShift = uint(bits.TrailingZeros64(uint64(s.block)))
	s.lu.Attrs = api.SCSILuPhyAttribute{
		DeviceType: api.TYPE_DISK, Online: true, Readonly: o.ReadOnly, ThinProvisioning: o.AsksThin(),
	}
	s.owned = true
	if err := s.open(o.Parameters); err != nil {
		return nil, s.fail("open", 0, 0, err)
	}
	if own, ok := bs.(*backing); ok {
		return own.opened()
	}
	if _, err := s.Refresh(context.Background()); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.lu.Size = uint64(s.size.Load())
	return s, nil
}

// open calls Init, if there is anything to say to it, and Open.
func (s *store) open(parameters map[string]string) error {
	if len(parameters) > 0 {
		var list []string
		for _, name := range slices.Sorted(maps.Keys(parameters)) {
			list = append(list, name+"="+parameters[name])
		}
		if err := contained(func() error { return s.bs.Init(s.lu, strings.Join(list, ";")) }); err != nil {
			return fmt.Errorf("the plug-in's Init: %w", err)
		}
		s.initialized = true
	}
	err := contained(func() error { return s.bs.Open(s.lu, s.path) })
	if err != nil && s.initialized {
		err = errors.Join(err, contained(func() error { return s.bs.Exit(s.lu) }))
	}
	return err
}

// Wrap makes a store of a logical unit of gotgt's LUN map, whose plug-in is
// open. Its size is lu.Size, which gotgt's Resize changes; the caller sees to it
// that nobody changes it during the store's Refresh. Block size, write
// protection and thin provisioning are lu's. Of o, only Name and Path (for
// messages) and PadReads count. Close leaves the plug-in open:
// who opened it closes it. A plug-in that is a store of this project
// ([BackingStore]) is returned as that store, which Close does close.
func Wrap(lu *api.SCSILu, o Options) (storage.Store, error) {
	if lu == nil || lu.Storage == nil {
		return nil, errors.New("can't serve a logical unit of gotgt that has no backing store")
	}
	if own, ok := lu.Storage.(*backing); ok {
		return own.opened()
	}
	o.ReadOnly = lu.Attrs.Readonly || lu.Attrs.SWP
	o.Thin = &lu.Attrs.ThinProvisioning
	o.BlockSize = 0
	if lu.BlockShift != 0 {
		o.BlockSize = 1 << min(lu.BlockShift, 30)
	}
	s := newStore(lu.Storage, lu, &o)
	if _, err := s.Refresh(context.Background()); err != nil {
		return nil, err
	}
	return s, nil
}
