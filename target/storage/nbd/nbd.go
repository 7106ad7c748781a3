// SPDX-License-Identifier: Apache-2.0

// Package nbd is the storage driver "nbd": the blocks are an export of an NBD server, such as nbdkit,
// qemu-nbd or qemu-storage-daemon, that listens at a Unix socket. docs/nbd.md says what it does and does not do.
package nbd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gotgtd/gotgtd/target/storage"
)

func init() {
	storage.Register("nbd", storage.Driver{
		Open:  open,
		Check: check,
		Needs: storage.SettingPath,
		Takes: storage.SettingOptions,
		Identify: func(_ string, o storage.Options) (string, int64, error) {
			return identity(o), 0, nil
		},
	})
}

// handshakeTime is how long a server may take until it has given the export.
const handshakeTime = 10 * time.Second

// identity is the ID of a store: nothing but socket and name tell what an export is.
func identity(o storage.Options) string { return "nbd:" + o.Path + ":" + o.Parameters["export"] }

// check returns what is wrong with the settings.
func check(_ string, o storage.Options) error {
	if !filepath.IsAbs(o.Path) {
		return &storage.Error{Op: "open", Path: o.Path, Err: errors.New("backend nbd wants the absolute path of the server's Unix socket; it has no TCP, for which a server can be put between (docs/nbd.md)")}
	}
	for key := range o.Parameters {
		if key != "export" {
			return &storage.Error{Op: "open", Path: o.Path, Err: fmt.Errorf("backend nbd has no option %q, only export", key)}
		}
	}
	if n := len(o.Parameters["export"]); n > maxName {
		return &storage.Error{Op: "open", Path: o.Path, Err: fmt.Errorf("the name of the export has %d bytes, at most %d are possible", n, maxName)}
	}
	return nil
}

// store is an export that is connected to.
type store struct {
	c    *client
	e    *export
	info storage.Info
	told atomic.Bool // the logical unit knows that what was written may be lost
}

var _ interface {
	storage.Store
	storage.Capable
} = (*store)(nil)

// open connects to the server.
func open(ctx context.Context, name string, o storage.Options) (storage.Store, error) {
	if err := check(name, o); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, handshakeTime,
		fmt.Errorf("no answer within %v: does the server allow another connection (qemu-nbd --shared=2)?", handshakeTime))
	defer cancel()
	s, err := connect(ctx, o)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, &storage.Error{Op: "open", Path: o.Path, Err: err}
	}
	return s, nil
}

func connect(ctx context.Context, o storage.Options) (*store, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", o.Path)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	e, err := negotiate(conn, o.Parameters["export"])
	if err == nil {
		err = e.serves(&o)
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	s := &store{e: e, info: storage.Info{
		Type: "nbd", Path: o.Path, ID: identity(o), Size: o.Whole(int64(e.size)), ReadOnly: o.ReadOnly || e.can(readOnly),
	}}
	if !s.info.ReadOnly && e.can(canTrim) && e.can(canWriteZeroes) {
		s.info.Granularity = int64(e.preferred)
	}
	s.c = newClient(conn)
	return s, nil
}

// serves tells whether an export can be a logical unit.
func (e *export) serves(o *storage.Options) error {
	block := o.BlockOptions
	block.SetDefaults()
	if int64(e.least) > int64(block.BlockSize) {
		return fmt.Errorf("the export has blocks of %d bytes, more than block-size, %d", e.least, block.BlockSize)
	}
	if !o.ReadOnly && !e.can(readOnly) && !e.can(canFlush) {
		return errors.New("the export can't flush, so what is written could be lost: set read-only, or have the server flush")
	}
	return nil
}

// Info returns the store's properties.
func (s *store) Info() storage.Info { return s.info }

// Capabilities has what the export can do.
func (s *store) Capabilities() (c storage.Capabilities) {
	if s.info.ReadOnly {
		return c
	}
	c.Settler = s
	if s.e.can(canFUA) {
		c.DurableWriter = s
	}
	if s.e.can(canWriteZeroes) {
		c.Discarder, c.Zeroer = s, s
	}
	return c
}

// each has f done to the pieces of a range that are not too long for one request.
func (s *store) each(op string, off, n int64, f func(done, n int64) error) (int, error) {
	err := storage.CheckRange(off, n, s.info.Size)
	most := int64(min(s.e.most, defaultBlock))
	most -= most % int64(s.e.least)
	done := int64(0)
	for err == nil && done < n {
		piece := min(n-done, most)
		if err = f(done, piece); err == nil {
			done += piece
		}
	}
	if err != nil {
		return int(done), &storage.Error{Op: op, Path: s.info.Path, Off: off, Len: n, Err: err}
	}
	return int(done), nil
}

// ReadAt fills p from off.
func (s *store) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return s.each("read", off, int64(len(p)), func(done, n int64) error {
		return s.c.do(ctx, cmdRead, 0, off+done, int(n), p[done:][:n], nil)
	})
}

// WriteAt writes p at off.
func (s *store) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	return s.write(ctx, 0, p, off)
}

// WriteDurableAt writes with FUA.
func (s *store) WriteDurableAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := s.write(ctx, flagFUA, p, off)
	return n, s.tell(err)
}

// tell remembers that a durable write or a flush has failed with the connection.
func (s *store) tell(err error) error {
	if errors.Is(err, syscall.ENOTCONN) {
		s.told.Store(true)
	}
	return err
}

func (s *store) write(ctx context.Context, flags uint16, p []byte, off int64) (int, error) {
	return s.each("write", off, int64(len(p)), func(done, n int64) error {
		return s.c.do(ctx, cmdWrite, flags, off+done, int(n), nil, p[done:][:n])
	})
}

// Discard has the range read as zeros, and lets the server free it. NBD_CMD_TRIM would promise no zeros.
func (s *store) Discard(ctx context.Context, off, n int64) error {
	return s.zero(ctx, "discard", 0, off, n)
}

// WriteZeroes has the range read as zeros, and keeps its space.
func (s *store) WriteZeroes(ctx context.Context, off, n int64) error {
	return s.zero(ctx, "zero", flagNoHole, off, n)
}

func (s *store) zero(ctx context.Context, op string, flags uint16, off, n int64) error {
	_, err := s.each(op, off, n, func(done, n int64) error {
		return s.c.do(ctx, cmdWriteZeroes, flags, off+done, int(n), nil, nil)
	})
	return err
}

// Flush has the server flush. Since a connection that has failed stays so, a flush after it fails too: what
// was written before may be lost with the server.
func (s *store) Flush(ctx context.Context) error {
	if s.info.ReadOnly {
		return nil
	}
	return s.tell(s.flush(ctx))
}

func (s *store) flush(ctx context.Context) error {
	if err := s.c.do(ctx, cmdFlush, 0, 0, 0, nil, nil); err != nil {
		return &storage.Error{Op: "flush", Path: s.info.Path, Err: err}
	}
	return nil
}

// Settle flushes: only then does a server without NBD_FLAG_CAN_MULTI_CONN promise that another connection sees
// what was written over this one. If the connection has failed and the logical unit has been told,
// nothing can be made good here: that flushes fail moves with the logical unit, to a new connection.
func (s *store) Settle(ctx context.Context) error {
	if s.info.ReadOnly || s.told.Load() {
		return nil
	}
	return s.flush(ctx)
}

// Close ends the connection.
func (s *store) Close() error {
	s.c.close()
	return nil
}
