// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHeardAfterExit: a successor that has attached, said why it can't go on, and ended
// before anybody looked is heard, whichever of these is seen first.
func TestHeardAfterExit(t *testing.T) {
	const why = "the state folder is a file"
	died := errors.New("the successor exited with exit status 1")
	for range 20 { // select takes either
		conn, child, err := socketPair()
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{attachWord, why} {
			if _, err := child.WriteString(word); err != nil {
				t.Fatal(err)
			}
		}
		child.Close()
		fd, err := unix.MemfdCreate("slot", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		s, err := emptySlot(fd)
		if err != nil {
			t.Fatal(err)
		}
		b := &launch{p: &Process{slot: s, log: slog.Default()}, conn: conn, done: make(chan struct{}), err: died}
		close(b.done)
		_, err = b.attach(t.Context())
		if !errors.Is(err, died) || !b.spoke {
			t.Fatalf("attach: %v, it has spoken: %v", err, b.spoke)
		}
		err = b.heardAfterExit(t.Context(), err, func(_ context.Context, s Successor) error {
			s.Kill() // of nobody
			buf := make([]byte, 100)
			n, err := s.Conn.Read(buf)
			return errors.Join(errors.New(string(buf[:n])), err)
		})
		if want := why + " (" + died.Error() + ")"; err.Error() != want || !errors.Is(err, died) {
			t.Fatalf("%q, want %q", err, want)
		}
		conn.Close()
		s.close()
		unix.Close(fd)
	}
}
