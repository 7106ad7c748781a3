// SPDX-License-Identifier: Apache-2.0

package unixhttp

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gotgtd/gotgtd/test/peer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func listen(t *testing.T) (*net.UnixListener, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "socket")
	l, err := ListenPrivate(func() (*net.UnixListener, error) {
		return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	t.Cleanup(func() { l.Close() })
	return l, path
}

func serve(t *testing.T, h http.HandlerFunc, o Options) (*Server, string) {
	t.Helper()
	l, path := listen(t)
	s := Serve(l, h, o)
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s, path
}

func TestListenPrivate(t *testing.T) {
	_, path := listen(t)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", info.Mode(), err)
	}
	dir := filepath.Join(t.TempDir(), "after")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if info, err = os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("a folder that is made later is %v, %v", info.Mode(), err)
	}
}

func TestRemoveDead(t *testing.T) {
	l, path := listen(t)
	var inUse *InUseError
	if err := RemoveDead(path); !errors.As(err, &inUse) || inUse.Path != path || inUse.PID != os.Getpid() {
		t.Errorf("a socket that is listened on: %v, %+v", err, inUse)
	}
	link := path + ".link"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{filepath.Dir(path), link} {
		if err := RemoveDead(other); !errors.Is(err, ErrNoSocket) || !strings.Contains(err.Error(), other) {
			t.Errorf("%s: %v", other, err)
		}
	}
	for range 2 { // it is there, and it is not
		if err := RemoveDead(path); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("it is left: %v", err)
		}
	}
}

func TestMakeFolder(t *testing.T) {
	dir := t.TempDir()
	if err := MakeFolder(filepath.Join(dir, "a", "b", "socket")); err != nil {
		t.Error(err)
	}
}

func TestFolderOfAnotherUser(t *testing.T) {
	peer.NeedRoot(t)
	dir := t.TempDir()
	if err := os.Chown(dir, 12345, -1); err != nil {
		t.Fatal(err)
	}
	if err := MakeFolder(filepath.Join(dir, "socket")); err == nil || !strings.Contains(err.Error(), "belongs to another user") {
		t.Errorf("a folder of another user: %v", err)
	}
}

func TestClientAndServer(t *testing.T) {
	_, path := serve(t, func(w http.ResponseWriter, r *http.Request) {
		question, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		Reply(w, http.StatusTeapot, []string{r.Host, r.Method, r.URL.String(), string(question)})
	}, Options{})
	for limit, want := range map[int64]string{
		1000: `["host","PUT","/a?b=c","text"]` + "\n",
		6:    `["host`,
	} {
		resp, err := NewClient(path, "host", "/", limit).Do(t.Context(), http.MethodPut, "/a?b=c", []byte("text"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		if err != nil || string(got) != want || resp.StatusCode != http.StatusTeapot {
			t.Errorf("within %d bytes the answer is %s %q, %v; want %q", limit, resp.Status, got, err, want)
		}
		resp.Body.Close()
	}
}

// A request that does not arrive is given up. The bound is not one for the answer,
// which may take as long as what was asked for.
func TestReadTimeout(t *testing.T) {
	const bound = 50 * time.Millisecond
	_, path := serve(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
			t.Error("the request has ended during the answer")
		case <-time.After(4 * bound):
		}
		Reply(w, http.StatusOK, "late")
	}, Options{ReadTimeout: bound})
	silent, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if _, err := silent.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("of a request that does not come: %v", err)
	}
	c := NewClient(path, "host", "/", 100)
	resp, err := c.Do(t.Context(), http.MethodGet, "/", nil)
	for i := 0; err != nil && i < 100; i++ { // on a busy machine it may itself come too late
		resp, err = c.Do(t.Context(), http.MethodGet, "/", nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || string(text) != `"late"`+"\n" {
		t.Errorf("the answer is %q, %v", text, err)
	}
}

// Wait tells an end that was asked for from one that was not.
func TestWait(t *testing.T) {
	s, _ := serve(t, nil, Options{})
	s.Leave()
	if err := s.Wait(); err != nil {
		t.Errorf("after Leave: %v", err)
	}
	broken := errors.New("broken")
	failing := Serve(failingListener{Listener: s.listener, err: broken}, nil, Options{})
	if err := failing.Wait(); !errors.Is(err, broken) {
		t.Errorf("of a listener that fails: %v", err)
	}
}

type failingListener struct {
	net.Listener
	err error
}

func (l failingListener) Accept() (net.Conn, error) { return nil, l.err }
