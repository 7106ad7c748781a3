// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/gostor/gotgt/pkg/scsi"
)

// A controller takes requests by HTTP, on a socket in the file system.
type controller struct {
	path     string
	frontend *frontend
	server   http.Server
	failed   chan error
	ended    chan struct{} // a request to end
}

// status is the answer to a request for statistics.
type status struct {
	PID   int
	Size  int64 // bytes
	Stats scsi.Stats
}

func newController(path string) *controller {
	c := &controller{path: path, failed: make(chan error, 1), ended: make(chan struct{}, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(status{os.Getpid(), c.frontend.volume.size(), c.frontend.stats()})
	})
	mux.HandleFunc("POST /resize", func(w http.ResponseWriter, r *http.Request) {
		size, err := strconv.ParseInt(r.URL.Query().Get("size"), 10, 64)
		if err == nil {
			err = c.frontend.resize(size)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	mux.HandleFunc("POST /close", func(http.ResponseWriter, *http.Request) {
		select {
		case c.ended <- struct{}{}:
		default: // somebody else has asked
		}
	})
	c.server = http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	return c
}

// serving takes requests from now on, in place of the process before.
func (c *controller) serving() {
	if c.path == "" {
		return
	}
	err := os.Remove(c.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		c.failed <- err
		return
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: c.path})
	if err != nil {
		c.failed <- err
		return
	}
	l.SetUnlinkOnClose(false) // the next process has the path by then
	go func() { c.failed <- c.server.Serve(l) }()
}

// wait waits for the end: a request, a signal, or a failure.
func (c *controller) wait(ctx context.Context, ended <-chan error) error {
	var err error
	select {
	case <-ctx.Done():
	case <-c.ended:
	case err = <-c.failed:
	case err = <-ended:
		return err
	}
	err = errors.Join(err, c.frontend.shutdown(), <-ended)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(err, c.server.Shutdown(ctx))
}
