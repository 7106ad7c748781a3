// SPDX-License-Identifier: Apache-2.0

package unixhttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// impatient is a client that waits for a moment only.
func impatient(path string) *Client {
	c := NewClient(path, "host", "/alive", 100)
	c.silence = 20 * time.Millisecond
	return c
}

// TestSilence asks a server that takes connections and never answers. The error names the
// process and the socket.
func TestSilence(t *testing.T) {
	_, path := listen(t) // into whose backlog the connections go
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		_, err := impatient(path).Do(t.Context(), method, "/", nil)
		var silent *SilentError
		if want := fmt.Sprintf("(PID %d) listens on %s ", os.Getpid(), path); !errors.As(err, &silent) || !strings.Contains(silent.Error(), want) {
			t.Errorf("%s: %v, want a SilentError with %q", method, err, want)
		}
	}
}

// TestSilenceInAnswer: the answer may begin and not end.
func TestSilenceInAnswer(t *testing.T) {
	_, path := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}, Options{})
	c := impatient(path)
	c.silence = 3 * time.Second
	resp, err := c.Do(t.Context(), http.MethodGet, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var silent *SilentError
	if _, err := io.ReadAll(resp.Body); !errors.As(err, &silent) {
		t.Errorf("the answer ends with %v", err)
	}
}

// TestLongOperation: one that goes on for longer is waited for as long as the server answers
// otherwise, and no longer.
func TestLongOperation(t *testing.T) {
	var asked atomic.Int32
	lives, hangs := make(chan struct{}), make(chan struct{})
	defer close(hangs)
	_, path := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch n := asked.Add(1); {
		case r.URL.Path == "/long":
			<-lives
		case r.URL.Path == "/never", n > 2:
			<-hangs
		case n == 2:
			close(lives)
		}
		Reply(w, http.StatusOK, "done")
	}, Options{})
	c := impatient(path)
	c.silence = 2 * time.Second // in which the answers come on a busy machine
	var resp *http.Response
	resp, err := c.Do(t.Context(), http.MethodPost, "/long", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	var silent *SilentError
	if _, err := c.Do(t.Context(), http.MethodPost, "/never", nil); !errors.As(err, &silent) {
		t.Errorf("an operation of a server that hangs: %v", err)
	}
}

// TestNoSilence: whoever asks may give up before, and a server that is gone is not silent.
func TestNoSilence(t *testing.T) {
	l, path := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var silent *SilentError
	if _, err := impatient(path).Do(ctx, http.MethodPost, "/", nil); !errors.Is(err, context.Canceled) || errors.As(err, &silent) {
		t.Errorf("given up: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := impatient(path).Do(t.Context(), http.MethodPost, "/", nil); err == nil || errors.As(err, &silent) {
		t.Errorf("gone: %v", err)
	}
}
