// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestThrottle(t *testing.T) {
	var j throttle
	j.note(0, slowWrite)
	if j.on(slowWrite) {
		t.Error("a throttle after a write that was not slow")
	}
	end := 5*time.Second + slowWrite + 1
	j.note(5*time.Second, end)
	if !j.on(end) || !j.on(end+slowTime-1) {
		t.Error("no throttle after a slow write")
	}
	if j.on(end + slowTime) {
		t.Error("the throttle does not end")
	}
}

func TestNoWriteIsTriedWhileThrottled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	s, err := OpenFile(Options{Path: path, Create: true, Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	f := s.(*file)
	b := []byte{1}
	if n, err := f.TryWriteAt(b, 0); n != 1 || err != nil {
		t.Errorf("TryWriteAt = %d, %v", n, err)
	}
	f.throttle.until.Store(int64(time.Since(began) + time.Hour))
	if n, err := f.TryWriteAt([]byte{2}, 0); n != 0 || err != ErrWouldBlock {
		t.Errorf("while throttled: TryWriteAt = %d, %v, want ErrWouldBlock", n, err)
	}
	if _, err := f.ReadAt(t.Context(), b, 0); err != nil || b[0] != 1 {
		t.Errorf("the byte is %d, %v: the write was done", b[0], err)
	}
	f.throttle.until.Store(0)
	f.readOnly = true
	if _, err := f.TryWriteAt(b, 0); !errors.Is(err, unix.EROFS) {
		t.Errorf("read-only: %v", err)
	}
}
