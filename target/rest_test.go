// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/headroom"
)

// arenaMemory is how many bytes the files of arenas of this process have.
func arenaMemory(t *testing.T) (bytes int64) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name, _ := os.Readlink(f)
		var st unix.Stat_t
		if strings.HasPrefix(name, "/memfd:gotgtd-buffers") && unix.Stat(f, &st) == nil {
			bytes += st.Blocks * 512
		}
	}
	return bytes
}

// TestRoomOfIdleBuffers: memory of buffers that nobody uses is no reason to refuse an upgrade, since it is
// given back then.
func TestRoomOfIdleBuffers(t *testing.T) {
	s := embed(t, Options{Arena: true})
	addTarget(t, s, iqnA)
	address := listen(t, s)
	s.Serve()
	session, err := dialTarget(t, address, iqnA)
	if err == nil {
		err = session.Ping(t.Context(), 0, true, make([]byte, 4096))
	}
	if err != nil {
		t.Fatal(err)
	}
	session.Close()
	for s.node.MemoryUsed() > 0 {
		time.Sleep(time.Millisecond)
	}
	real := available
	defer func() { available = real }()
	asked := 0
	available = func() headroom.Memory {
		if asked++; asked == 1 {
			return headroom.Memory{Of: "the machine"}
		}
		if n := arenaMemory(t); n > 0 {
			t.Errorf("%d bytes are kept for nobody", n)
		}
		return headroom.Memory{Bytes: roomBeside}
	}
	if err := (&giver{server: s}).Room(true); err != nil || asked != 2 {
		t.Errorf("when asked for the %d. time: %v", asked, err)
	}
}

// TestNoRoom: an upgrade that would end both processes is refused, and the reason says what is short.
func TestNoRoom(t *testing.T) {
	s, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	real := available
	defer func() { available = real }()
	g := &giver{server: s}
	available = func() headroom.Memory { return headroom.Memory{Bytes: roomBeside - 1, Of: "the control group /a"} }
	for _, follows := range []bool{true, false} {
		if err := g.Room(follows); err == nil || !strings.Contains(err.Error(), "it would take 32 MiB of memory, and the control group /a has 31 MiB left") {
			t.Errorf("without room: %v", err)
		}
	}
	available = func() headroom.Memory { return headroom.Memory{Bytes: roomBeside} }
	if err := g.Room(true); err != nil {
		t.Errorf("with room: %v", err)
	}
}

// TestRestTook: how long data takes that follows is known when it is there.
func TestRestTook(t *testing.T) {
	s := embed(t, Options{})
	if took, ok := s.RestTook(); ok {
		t.Errorf("nothing has followed, and took %v", took)
	}
	theirs, ours, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.follow(theirs)
	if took, ok := s.RestTook(); ok {
		t.Errorf("what is on its way has taken %v", took)
	}
	if err := errors.Join(ours.Close(), s.followed(t.Context())); err != nil {
		t.Fatal(err)
	}
	if took, ok := s.RestTook(); !ok || took <= 0 {
		t.Errorf("what is there has taken %v, %v", took, ok)
	}
}
