// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi"

	"github.com/gotgtd/gotgtd/target/storage"
)

const mib = 1 << 20

func TestOpenTellsWhatIsWrong(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(*memory)
		o       Options
		want    string
	}{
		"open fails":  {func(m *memory) { m.onOpen = func() error { return syscall.ENOENT } }, Options{}, `can't open backing store "NAME:vol": no such file`},
		"open panics": {func(m *memory) { m.onOpen = func() error { panic("lost") } }, Options{}, `can't open backing store "NAME:vol": the plug-in panicked: lost (plugin.`},
		"no size":     {func(m *memory) { m.size = 0 }, Options{}, "does not say its size"},
		"small":       {func(m *memory) { m.size = 4095 }, Options{Options: storage.Options{BlockOptions: storage.BlockOptions{BlockSize: 4096}}}, "has 4095 bytes, which is no block of 4096"},
		"huge":        {func(m *memory) { m.size = 1 << 63 }, Options{}, "9223372036854775808 bytes"},
		"size panics": {func(m *memory) { m.onSize = func() uint64 { panic(io.EOF) } }, Options{}, "the plug-in panicked: EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory(mib)
			test.prepare(m)
			test.o.Name, test.o.Path = m.register(t), "vol"
			s, err := Open(test.o)
			want := strings.ReplaceAll(test.want, "NAME", test.o.Name)
			if s != nil || err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Open = %v, %v, want an error with %q", s, err, want)
			}
			if opened := m.onOpen == nil; opened != slices.Contains(m.calls, "close") {
				t.Errorf("calls of the plug-in: %q", m.calls)
			}
		})
	}
	for _, name := range []string{"", "nowhere"} {
		if s, err := Open(Options{Name: name}); s != nil || err == nil || Registered(name) == nil {
			t.Errorf("there is a plug-in %q: %v, %v", name, s, err)
		}
	}
	scsi.RegisterBackingStore(t.Name(), func() (api.BackingStore, error) { panic("at once") })
	if err := Registered(t.Name()); err == nil || !strings.Contains(err.Error(), "at once") {
		t.Errorf("Registered: %v", err)
	}
	if err := Registered("file"); err != nil {
		t.Errorf("gotgt's own store: %v", err)
	}
	if s, err := Wrap(&api.SCSILu{}, Options{}); err == nil {
		t.Errorf("a logical unit without a plug-in is %v", s)
	}
}

func TestParametersReachInit(t *testing.T) {
	m := newMemory(mib)
	o := Options{Name: m.register(t), Options: storage.Options{Path: "pool/disk", Parameters: map[string]string{"id": "admin", "conf": "/etc/x"}}}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want := []string{"init conf=/etc/x;id=admin", "open pool/disk", "close", "exit"}
	if !slices.Equal(m.calls, want) {
		t.Errorf("calls %q, want %q", m.calls, want)
	}
	if _, err := s.ReadAt(t.Context(), make([]byte, 512), 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("reading what is closed: %v", err)
	}
	if err := errors.Join(s.Flush(t.Context()), s.Close()); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("using what is closed: %v", err)
	}
}

func TestShortReads(t *testing.T) {
	const n = 4096
	want := bytes.Repeat([]byte{7}, n)
	var m *memory
	for name, test := range map[string]struct {
		read func(off, n int64) ([]byte, error)
		got  int
		pad  bool
		err  error // nil: the plug-in's data is complete, or filled up
	}{
		"in parts":             {read: func(off, n int64) ([]byte, error) { return m.read(off, min(n, 512)), nil }, got: n},
		"EOF at the end":       {read: func(off, n int64) ([]byte, error) { return m.read(off, n), io.EOF }, got: n},
		"EOF too early":        {read: func(off, _ int64) ([]byte, error) { return m.read(off, 512), io.EOF }, got: 512, err: io.ErrUnexpectedEOF},
		"EOF too early, fill":  {read: func(off, _ int64) ([]byte, error) { return m.read(off, 512), io.EOF }, got: 512, pad: true},
		"nothing":              {read: func(int64, int64) ([]byte, error) { return nil, nil }, err: io.ErrUnexpectedEOF},
		"nothing, fill":        {read: func(int64, int64) ([]byte, error) { return nil, nil }, pad: true},
		"too much":             {read: func(off, n int64) ([]byte, error) { return m.read(off, n+512), nil }, got: n, err: errAny},
		"data and an error":    {read: func(off, n int64) ([]byte, error) { return m.read(off, n), syscall.EIO }, got: n, err: syscall.EIO},
		"an error is no hole":  {read: func(int64, int64) ([]byte, error) { return nil, syscall.EIO }, pad: true, err: syscall.EIO},
		"a panic":              {read: func(int64, int64) ([]byte, error) { panic(1) }, err: errAny},
		"a panic with a cause": {read: func(int64, int64) ([]byte, error) { panic(syscall.ENOSPC) }, err: errAny},
	} {
		t.Run(name, func(t *testing.T) {
			m = newMemory(mib)
			m.write(bytes.Clone(want), 0)
			m.onRead = test.read
			s := open(t, Options{Name: m.register(t), PadReads: test.pad})
			p := bytes.Repeat([]byte{0xee}, n)
			got, err := s.ReadAt(t.Context(), p, 0)
			if (err != nil) != (test.err != nil) || test.err != errAny && !errors.Is(err, test.err) {
				t.Fatalf("ReadAt = %d, %v, want error %v", got, err, test.err)
			}
			if test.err == errAny && errors.As(err, new(syscall.Errno)) {
				t.Errorf("the panic's value counts as an error of the system: %v", err)
			}
			if !bytes.Equal(p[:test.got], want[:test.got]) {
				t.Error("data is missing")
			}
			if err == nil && !bytes.Equal(p[test.got:], make([]byte, n-test.got)) {
				t.Error("what is missing is not zeros")
			}
		})
	}
}

// errAny stands for an error that needs no closer look.
var errAny = errors.New("any error")

func TestPanicIsOneLine(t *testing.T) {
	m := newMemory(mib)
	m.onWrite = func([]byte, int64) error { panic(strings.Repeat("ä", 4000)) }
	m.onSync = func() error { var list []int; _ = list[len(m.calls)]; return nil }
	s := open(t, Options{Name: m.register(t)})
	_, err := s.WriteAt(t.Context(), make([]byte, 512), 0)
	var p *PanicError
	if !errors.As(err, &p) || len(p.Value) > 256+3 || !strings.Contains(p.Where, "TestPanicIsOneLine") {
		t.Errorf("WriteAt: %v", err)
	}
	if err = s.Flush(t.Context()); !errors.As(err, &p) || !strings.Contains(p.Value, "index out of range") ||
		!strings.Contains(p.Where, "TestPanicIsOneLine.func2, store_test.go:") {
		t.Errorf("Flush: %v", err)
	}
	err = contained(func() error { panic(badError{}) })
	if !errors.As(err, &p) || !strings.Contains(p.Value, "badError") {
		t.Errorf("a panic while a panic is printed: %v", err)
	}
}

// badError panics when it is printed, and what it panics with does so too.
type badError struct{}

func (badError) Error() string { panic(badError{}) }

// A plug-in may keep the buffer of a write; the caller uses it again.
func TestPluginMayKeepItsBuffer(t *testing.T) {
	s := open(t, Options{Name: newMemory(mib).register(t)})
	want := bytes.Repeat([]byte{1}, 512)
	p := bytes.Clone(want)
	if _, err := s.WriteAt(t.Context(), p, 512); err != nil {
		t.Fatal(err)
	}
	clear(p)
	got := make([]byte, 512)
	if _, err := s.ReadAt(t.Context(), got, 512); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the write has changed afterwards (error %v)", err)
	}
	clear(got)
	if _, err := s.ReadAt(t.Context(), p, 512); err != nil || !bytes.Equal(p, want) {
		t.Errorf("the reader shares the plug-in's memory (error %v)", err)
	}
}

func TestWhatIsAdvertised(t *testing.T) {
	name := newMemory(mib + 100).register(t)
	for _, test := range []struct {
		o    Options
		thin bool
	}{
		{Options{Name: name}, false},
		{Options{Name: name, Options: storage.Options{BlockOptions: storage.BlockOptions{Thin: new(true), BlockSize: 4096}}}, true},
		{Options{Name: name, Options: storage.Options{BlockOptions: storage.BlockOptions{Thin: new(true), ReadOnly: true}}}, false},
		{Options{Name: "file", Options: storage.Options{Path: newDisk(t), BlockOptions: storage.BlockOptions{Thin: new(true)}}}, false},
		{Options{Name: "null", Options: storage.Options{Size: mib, BlockOptions: storage.BlockOptions{Thin: new(true)}}}, false},
	} {
		s := open(t, test.o)
		discards := storage.Can(s).Discarder != nil
		zeroes := storage.Can(s).Zeroer != nil
		maps := storage.Can(s).Mapper != nil
		info := s.Info()
		if discards != test.thin || zeroes || maps || test.thin != (info.Granularity == 4096) || info.Size != mib || info.Type != "gotgt:"+test.o.Name {
			t.Errorf("%+v: discards %v, zeroes %v, maps %v, %+v", test.o, discards, zeroes, maps, info)
		}
		if _, err := s.WriteAt(t.Context(), make([]byte, 512), 0); errors.Is(err, syscall.EROFS) != test.o.ReadOnly {
			t.Errorf("%+v: writing: %v", test.o, err)
		}
	}
}

func TestNullIsZeros(t *testing.T) {
	s := open(t, Options{Name: "null", Options: storage.Options{Size: mib}})
	p := bytes.Repeat([]byte{1}, 4096)
	if _, err := s.WriteAt(t.Context(), p, mib-4096); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadAt(t.Context(), p, mib-4096); err != nil || !bytes.Equal(p, make([]byte, 4096)) {
		t.Errorf("reading: %v", err)
	}
}

// TestAllZero puts a byte that is none at each place of pieces of several lengths.
func TestAllZero(t *testing.T) {
	for n := range 70 {
		p := make([]byte, n)
		if !allZero(p) {
			t.Errorf("%d zeros are said to be something else", n)
		}
		for i := range p {
			p[i] = 1
			if allZero(p) {
				t.Errorf("byte %d of %d is said to be zero", i, n)
			}
			p[i] = 0
		}
	}
}

func TestLongRangesAreUnmappedInParts(t *testing.T) {
	m := newMemory(1 << 32)
	zeros := make([]byte, pieceSize)
	m.onRead = func(_, n int64) ([]byte, error) { return zeros[:n], nil }
	s := open(t, Options{Name: m.register(t), Options: storage.Options{BlockOptions: storage.BlockOptions{Thin: new(true)}}})
	if err := storage.Can(s).Discarder.Discard(t.Context(), 512, maxUnmap+1024); err != nil {
		t.Fatal(err)
	}
	if want := []string{"open ", "unmap 512 1073741824", "unmap 1073742336 1024"}; !slices.Equal(m.calls, want) {
		t.Errorf("calls %q, want %q", m.calls, want)
	}
	m.onUnmap = func([]api.UnmapBlockDescriptor) error { return syscall.ENOSPC }
	if err := storage.Can(s).Discarder.Discard(t.Context(), 0, 512); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Discard: %v", err)
	}
}

func TestSettledStoreIsLeftAlone(t *testing.T) {
	m := newMemory(mib)
	s := open(t, Options{Name: m.register(t)})
	step := func(want int, do func(context.Context) error) {
		t.Helper()
		m.calls = nil
		if err := do(t.Context()); err != nil || len(m.calls) != want {
			t.Errorf("error %v, calls %q", err, m.calls)
		}
	}
	step(1, s.Flush)
	step(1, storage.Can(s).Settler.Settle)
	step(0, s.Flush)
	if _, err := s.WriteAt(t.Context(), make([]byte, 512), 0); err != nil {
		t.Fatal(err)
	}
	step(1, s.Flush)
	step(1, s.Flush)
	m.onSync = func() error { return syscall.EIO }
	if err := storage.Can(s).Settler.Settle(t.Context()); !errors.Is(err, syscall.EIO) {
		t.Errorf("Settle: %v", err)
	}
	m.onSync = nil
	step(1, s.Flush)
}

func TestSizeChanges(t *testing.T) {
	m := newMemory(mib)
	s := open(t, Options{Name: m.register(t)})
	lu := &api.SCSILu{Storage: m, Size: mib, BlockShift: 12}
	w, err := Wrap(lu, Options{})
	if err != nil {
		t.Fatal(err)
	}
	m.size, lu.Size = 2*mib, 3*mib+512
	for s, want := range map[storage.Store]int64{s: 2 * mib, w: 3 * mib} {
		if size, err := storage.Can(s).Refresher.Refresh(t.Context()); size != want || err != nil || s.Info().Size != want {
			t.Errorf("Refresh = %d, %v, want %d", size, err, want)
		}
		if _, err := s.WriteAt(t.Context(), make([]byte, 512), want-512); err != nil {
			t.Error(err)
		}
	}
	m.calls = nil
	if err := w.Close(); err != nil || len(m.calls) > 0 {
		t.Errorf("closing what gotgt opened: %v, calls %q", err, m.calls)
	}
}
