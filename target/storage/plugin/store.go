// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"reflect"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi/backingstore"

	"github.com/gotgtd/gotgtd/target/storage"
)

// A store is a plug-in of gotgt as a store of this project. gotgt's interface has no way to end a
// call, so contexts count only between the calls of what takes several.
type store struct {
	bs    api.BackingStore
	lu    *api.SCSILu
	name  string
	path  string
	block int64

	owned       bool // opened here: Close closes it, and Size is asked for its size
	initialized bool // Init was called, so Exit has to be
	given       int64
	readOnly    bool
	thin        bool // the plug-in frees space
	pad         bool // short reads are filled up with zeros
	builtIn     bool // comes with gotgt

	size    atomic.Int64 // bytes, whole blocks
	closed  atomic.Bool
	settled atomic.Bool // nothing was written since Settle
}

var _ interface {
	storage.Store
	storage.Capable
} = (*store)(nil)

// builtIns is the path below which the plug-ins are that come with gotgt.
const builtIns = "github.com/gostor/gotgt/pkg/scsi/backingstore"

func newStore(bs api.BackingStore, lu *api.SCSILu, o *Options) *store {
	s := &store{
		bs: bs, lu: lu, name: o.Name, path: o.Path, block: int64(o.BlockSize), given: o.Size,
		readOnly: o.ReadOnly, pad: o.PadReads,
	}
	if s.block == 0 {
		s.block = 512
	}
	if t := reflect.TypeOf(bs); t.Kind() == reflect.Pointer {
		s.builtIn = strings.HasPrefix(t.Elem().PkgPath(), builtIns)
	}
	if _, null := bs.(*backingstore.NullBackingStore); null {
		s.pad = true
	}
	s.thin = o.AsksThin() && !s.builtIn && !s.readOnly
	return s
}

// Capabilities implements [storage.Capable]: a plug-in frees space if it is to and can.
func (s *store) Capabilities() storage.Capabilities {
	c := storage.Capabilities{Refresher: s, Settler: s}
	if s.thin {
		c.Discarder = s
	}
	return c
}

// fail is the error of an operation.
func (s *store) fail(op string, off, n int64, err error) error {
	return &storage.Error{Op: op, Path: s.label(), Off: off, Len: n, Err: err}
}

// label names the store in errors, as gotgt's configuration does.
func (s *store) label() string {
	if s.name == "" {
		return s.path
	}
	return s.name + ":" + s.path
}

// check refuses ranges that the store does not have, and all once it is closed.
func (s *store) check(op string, off, n int64) error {
	if s.closed.Load() {
		return s.fail(op, off, n, fs.ErrClosed)
	}
	if err := storage.CheckRange(off, n, s.size.Load()); err != nil {
		return s.fail(op, off, n, err)
	}
	return nil
}

// Info returns the store's properties.
func (s *store) Info() storage.Info {
	info := storage.Info{
		Type: "gotgt:" + s.name, Path: s.path, ID: identity(s.name, s.path), Size: s.size.Load(), ReadOnly: s.readOnly,
	}
	if s.thin {
		info.Granularity = s.block // a plug-in does not tell how much it frees at the least
	}
	return info
}

// ReadAt fills p from off.
func (s *store) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := s.check("read", off, int64(len(p))); err != nil {
		return 0, err
	}
	done := 0
	for done < len(p) {
		if err := ctx.Err(); err != nil {
			return done, s.fail("read", off, int64(len(p)), err)
		}
		n, err := s.read(p[done:], off+int64(done))
		done += n
		if err == nil {
			continue
		}
		if s.pad && errors.Is(err, io.ErrUnexpectedEOF) {
			clear(p[done:])
			break
		}
		return done, s.fail("read", off, int64(len(p)), err)
	}
	return len(p), nil
}

// read gets at least one byte, or io.ErrUnexpectedEOF where there is no more.
func (s *store) read(p []byte, off int64) (n int, err error) {
	var b []byte
	err = contained(func() (err error) {
		b, err = s.bs.Read(off, int64(len(p)))
		n = copy(p, b)
		return err
	})
	switch {
	case errors.Is(err, io.EOF) && n == len(p):
		err = nil
	case errors.Is(err, io.EOF):
		err = fmt.Errorf("the plug-in has no more than %d bytes: %w", n, io.ErrUnexpectedEOF)
	case err == nil && len(b) > len(p):
		err = fmt.Errorf("the plug-in returns %d bytes instead of %d", len(b), len(p))
	case err == nil && n == 0:
		err = fmt.Errorf("the plug-in returns nothing: %w", io.ErrUnexpectedEOF)
	}
	return n, err
}

// WriteAt writes p at off.
func (s *store) WriteAt(_ context.Context, p []byte, off int64) (int, error) {
	if err := s.check("write", off, int64(len(p))); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if err := s.write(p, off); err != nil {
		return 0, s.fail("write", off, int64(len(p)), err)
	}
	return len(p), nil
}

func (s *store) write(p []byte, off int64) error {
	if s.readOnly {
		return syscall.EROFS
	}
	if !s.builtIn {
		p = bytes.Clone(p)
	}
	s.settled.Store(false)
	return contained(func() error { return s.bs.Write(p, off) })
}

// Flush is the plug-in's DataSync of the whole store. After Settle there is
// nothing to flush until the next write.
func (s *store) Flush(context.Context) error {
	if s.closed.Load() {
		return s.fail("flush", 0, 0, fs.ErrClosed)
	}
	if s.settled.Load() {
		return nil
	}
	if err := contained(func() error { return s.bs.DataSync(0, s.size.Load()) }); err != nil {
		return s.fail("flush", 0, 0, err)
	}
	return nil
}

// Settle flushes, so that another process that has opened the plug-in sees
// what was written. A process that goes no further than this does not disturb
// that one by flushing again.
func (s *store) Settle(ctx context.Context) error {
	if err := s.Flush(ctx); err != nil {
		return err
	}
	s.settled.Store(true)
	return nil
}

// Refresh asks for the size.
func (s *store) Refresh(context.Context) (int64, error) {
	size, err := s.measure()
	if err == nil && size > math.MaxInt64 {
		err = fmt.Errorf("the plug-in says that it has %d bytes", size)
	}
	usable := int64(size) / s.block * s.block
	if err == nil && usable == 0 {
		err = fmt.Errorf("the plug-in has %d bytes, which is no block of %d", size, s.block)
		if size == 0 {
			err = errors.New("the plug-in does not say its size; the configuration has to")
		}
	}
	if err != nil {
		return 0, s.fail("measure", 0, 0, err)
	}
	s.size.Store(usable)
	return usable, nil
}

func (s *store) measure() (size uint64, err error) {
	if !s.owned {
		return s.lu.Size, nil
	}
	err = contained(func() error {
		size = s.bs.Size(s.lu)
		return nil
	})
	if size == 0 {
		size = uint64(max(s.given, 0))
	}
	return size, err
}

// Close closes the plug-in, if it was opened here.
func (s *store) Close() error {
	if s.closed.Swap(true) {
		return s.fail("close", 0, 0, fs.ErrClosed)
	}
	if !s.owned {
		return nil
	}
	err := contained(func() error { return s.bs.Close(s.lu) })
	if s.initialized {
		err = errors.Join(err, contained(func() error { return s.bs.Exit(s.lu) }))
	}
	if err != nil {
		return s.fail("close", 0, 0, err)
	}
	return nil
}
