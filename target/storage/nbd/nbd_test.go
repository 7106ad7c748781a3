// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"bytes"
	"errors"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
	"github.com/gotgtd/gotgtd/test/peer"
)

// serve starts a server, in whose arguments SOCKET stands for its socket, and returns the settings that
// lead to it.
func serve(t testing.TB, args ...string) (storage.Options, *exec.Cmd) {
	t.Helper()
	peer.Need(t, args[0])
	socket := filepath.Join(t.TempDir(), "s")
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "SOCKET", socket)
	}
	cmd := exec.Command(args[0], args[1:]...)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
			return storage.Options{Path: socket}, cmd
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not listen: %v", args[0], err)
		}
	}
}

func mustOpen(t *testing.T, o storage.Options) storage.Store {
	t.Helper()
	s, err := storage.OpenBackend(t.Context(), "nbd", o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What a store promises, over two servers.
func TestConformance(t *testing.T) {
	t.Run("nbdkit", func(t *testing.T) {
		o, _ := serve(t, "nbdkit", "-f", "-U", "SOCKET", "memory", "4M")
		storagetest.TestDriver(t, "nbd", o)
		storagetest.TestStore(t, func() storage.Store { return mustOpen(t, o) })
	})
	t.Run("qcow2", func(t *testing.T) {
		disk := filepath.Join(t.TempDir(), "disk")
		peer.Need(t, "qemu-img")
		if out, err := exec.Command("qemu-img", "create", "-f", "qcow2", disk, "4M").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		o, _ := serve(t, "qemu-nbd", "-t", "--shared=4", "-x", "disk", "-f", "qcow2", "--discard=unmap", "-k", "SOCKET", disk)
		o.Parameters = map[string]string{"export": "disk"}
		storagetest.TestDriver(t, "nbd", o)
		storagetest.TestStore(t, func() storage.Store { return mustOpen(t, o) })
	})
}

// Once the server is gone, nothing is said to be read, written or flushed.
func TestServerDies(t *testing.T) {
	o, server := serve(t, "nbdkit", "-f", "-U", "SOCKET", "memory", "4M")
	s := mustOpen(t, o)
	defer s.Close()
	b := make([]byte, 4096)
	if _, err := s.WriteAt(t.Context(), b, 0); err != nil {
		t.Fatal(err)
	}
	if err := server.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = server.Wait()
	settler := storage.Can(s).Settler
	for range 2 {
		if err := settler.Settle(t.Context()); !errors.Is(err, syscall.ENOTCONN) {
			t.Errorf("settled, and nobody has been told: %v", err)
		}
	}
	_, read := s.ReadAt(t.Context(), b, 0)
	_, written := s.WriteAt(t.Context(), b, 0)
	for op, err := range map[string]error{"read": read, "write": written, "flush": s.Flush(t.Context())} {
		if !errors.Is(err, syscall.ENOTCONN) {
			t.Errorf("%s: %v, want ENOTCONN", op, err)
		}
	}
	if err := settler.Settle(t.Context()); err != nil {
		t.Errorf("a failure that has been told keeps from moving: %v", err)
	}
}

// A server's error is that of the command alone.
func TestServerErrors(t *testing.T) {
	o, _ := serve(t, "nbdkit", "-f", "-U", "SOCKET", "--filter=error", "memory", "4M", "error-pwrite=ENOSPC", "error-pwrite-rate=100%")
	s := mustOpen(t, o)
	defer s.Close()
	b := make([]byte, 4096)
	if _, err := s.WriteAt(t.Context(), b, 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write: %v, want ENOSPC", err)
	}
	if _, err := s.ReadAt(t.Context(), b, 0); err != nil {
		t.Errorf("read after it: %v", err)
	}
}

// A read-only export is served so, and offers nothing that changes it.
func TestReadOnly(t *testing.T) {
	o, _ := serve(t, "nbdkit", "-f", "-r", "-U", "SOCKET", "memory", "4M")
	s := mustOpen(t, o)
	defer s.Close()
	if c := storage.Can(s); !s.Info().ReadOnly || c != (storage.Capabilities{}) {
		t.Errorf("read-only is %v, capabilities %+v", s.Info().ReadOnly, c)
	}
}

// What can't be served is refused with what is to be done.
func TestRefused(t *testing.T) {
	o, _ := serve(t, "nbdkit", "-f", "-U", "SOCKET", "--filter=blocksize-policy", "memory", "4M", "blocksize-minimum=4096", "blocksize-preferred=4096", "blocksize-maximum=1M")
	noFlush, _ := serve(t, "nbdkit", "-f", "-U", "SOCKET", "eval", "get_size=echo 4M", "pread=exit 1", "pwrite=exit 1", "can_write=exit 0", "can_flush=exit 3")
	for _, test := range []struct {
		o    storage.Options
		want string
	}{
		{o, "blocks of 4096 bytes, more than block-size, 512"},
		{noFlush, "can't flush"},
		{storage.Options{Path: "relative"}, "absolute path"},
		{storage.Options{Path: "/s", Parameters: map[string]string{"reconnect": "30s"}}, `no option "reconnect"`},
	} {
		s, err := storage.OpenBackend(t.Context(), "nbd", test.o)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, want %q", err, test.want)
		}
	}
}

// Whatever the server says, the handshake ends, with an export that can be worked with or an error.
func FuzzHandshake(f *testing.F) {
	f.Add([]byte("\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x00\x00\x00\x01\x00\x00\x00\x00"))
	f.Add([]byte("\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x00\x00\x00\x03\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := readExport(bytes.NewReader(b)); err == nil && (e.least == 0 || e.most < e.least || int64(e.size) < 0) {
			t.Errorf("%+v", e)
		}
	})
}

// A reply to a request that was not sent, or that is none, ends the connection; a reader waiting then has an error.
func TestWrongReplies(t *testing.T) {
	for _, reply := range []string{
		"\x67\x44\x66\x98\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff",
		"\x66\x8e\x33\xef\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x40",
	} {
		here, there := net.Pipe()
		c := newClient(here)
		done := make(chan struct{})
		go func() {
			defer close(done)
			b := make([]byte, headerSize)
			_, _ = there.Read(b)
			_, _ = there.Write([]byte(reply))
		}()
		if err := c.do(t.Context(), cmdRead, 0, 0, 512, make([]byte, 512), nil); !errors.Is(err, syscall.ENOTCONN) {
			t.Errorf("%x: %v", reply, err)
		}
		c.close()
		there.Close()
		<-done
	}
}

// Reading and writing take no memory, nor does the server's answer.
func BenchmarkReadWrite(b *testing.B) {
	o, _ := serve(b, "nbdkit", "-f", "-U", "SOCKET", "memory", "4M")
	s, err := storage.OpenBackend(b.Context(), "nbd", o)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	data := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.WriteAt(b.Context(), data, 0); err != nil {
			b.Fatal(err)
		}
		if _, err := s.ReadAt(b.Context(), data, 0); err != nil {
			b.Fatal(err)
		}
	}
}
