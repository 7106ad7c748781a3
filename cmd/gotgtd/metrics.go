// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/net/netutil"

	"github.com/gotgtd/gotgtd/internal/limit"
	"github.com/gotgtd/gotgtd/internal/unixhttp"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/exporter"
	"github.com/gotgtd/gotgtd/target/page"
)

// Bounds on those who scrape, or look at the page. The page has more of its own.
const (
	metricsTimeout = 10 * time.Second // for a request, and for its answer
	metricsHeader  = 16 << 10         // bytes
	metricsAtOnce  = 4                // answers that are made at the same time; more are refused
	metricsConns   = 64               // connections; more wait in the kernel
	metricsEnd     = 2 * time.Second  // for answers under way at the end: the next upgrade waits for this process's exit
)

// metricsServer answers those who scrape, and those who look at the page. One generation after the other accepts at the
// same socket: who connects in between waits in the kernel.
type metricsServer struct {
	http *http.Server
	page *page.Page
	done chan error
}

func init() { config.SetWebConfigCheck(checkWebConfig) }

// checkWebConfig says what is wrong with a file of exporter-toolkit's format, and with those that
// it names.
func checkWebConfig(file string) error {
	err := web.Validate(file)
	if err == nil || strings.Contains(err.Error(), file) {
		return err
	}
	return fmt.Errorf("%s: %w", file, err)
}

// listenMetrics opens the socket that the configuration names, the predecessor's if it
// has the same. nil: there is none.
func (d *daemon) listenMetrics(ctx context.Context, m config.Metrics) (*heldListener, error) {
	if m.Listen == "" {
		return nil, nil
	}
	path, unix := strings.CutPrefix(m.Listen, "unix:")
	listen := func() (net.Listener, error) { return d.process.Listen(ctx, "metrics", "tcp", m.Listen) }
	if unix {
		err := unixhttp.MakeFolder(path)
		if err == nil {
			err = unixhttp.RemoveDead(path)
			// The predecessor's own socket is taken over. Of another process's, Listen tells.
			if inUse := (*unixhttp.InUseError)(nil); d.successor && errors.As(err, &inUse) {
				err = nil
			}
		}
		if err != nil {
			return nil, fmt.Errorf("metrics: can't listen on %s: %w", m.Listen, err)
		}
		listen = func() (net.Listener, error) {
			return unixhttp.ListenPrivate(func() (net.Listener, error) { return d.process.Listen(ctx, "metrics", "unix", path) })
		}
	}
	l, err := listen()
	if err != nil {
		return nil, fmt.Errorf("metrics: can't listen on %s: %w", m.Listen, err)
	}
	return newHeldListener(l), nil
}

// serveMetrics answers on l. past is what the predecessor's page has told.
func (d *daemon) serveMetrics(l *heldListener, m config.Metrics, past []byte) *metricsServer {
	shown := page.New(page.Options{Status: d.Status, Past: past})
	mux := http.NewServeMux()
	mux.Handle("/", shown.Handler())
	mux.Handle("GET /metrics", promhttp.HandlerFor(exporter.New(d.Status), promhttp.HandlerOpts{MaxRequestsInFlight: metricsAtOnce}))
	s := &metricsServer{page: shown, done: make(chan error, 1), http: &http.Server{
		Handler: closeHTTP1(mux), ReadTimeout: metricsTimeout, WriteTimeout: metricsTimeout, MaxHeaderBytes: metricsHeader,
		ErrorLog: stdlog.New(connLog{limit.Logger(d.log)}, "", 0),
	}}
	told := slog.New(webLog{limit.Logger(d.log)})
	go func() {
		err := web.Serve(netutil.LimitListener(l, metricsConns), s.http, &web.FlagConfig{WebConfigFile: &m.WebConfig}, told)
		if !errors.Is(err, http.ErrServerClosed) {
			d.log.Error("metrics are not served any more: mend what the error names, and reload", "error", err)
		}
		s.done <- err
	}()
	return s
}

// connLog logs what becomes of connections that are no HTTP or no TLS. Anybody can cause such lines: the
// logger is a limited one.
type connLog struct{ log *slog.Logger }

// Write logs a line.
func (c connLog) Write(line []byte) (int, error) {
	c.log.Info("a connection for metrics has failed", "reason", strings.TrimSpace(string(line)))
	return len(line), nil
}

// webLog has what exporter-toolkit logs: that the web configuration, which it reads for each request, can't be
// read any more. What it says of each start the configuration says.
type webLog struct{ log *slog.Logger }

// Enabled implements [slog.Handler].
func (webLog) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelError }

// Handle implements [slog.Handler].
func (w webLog) Handle(_ context.Context, r slog.Record) error {
	reason := r.Message
	r.Attrs(func(a slog.Attr) bool {
		reason = a.Value.String()
		return true
	})
	w.log.Error("metrics and the page are refused: mend the file that metrics.web-config names, which is read for each request", "reason", reason)
	return nil
}

// WithAttrs implements [slog.Handler].
func (w webLog) WithAttrs([]slog.Attr) slog.Handler { return w }

// WithGroup implements [slog.Handler].
func (w webLog) WithGroup(string) slog.Handler { return w }

// closeHTTP1 gives each request of HTTP/1 a connection of its own, so that it reaches who serves by then. A connection
// of HTTP/2 carries all that a page is made of, and ends with GOAWAY when the server is shut down: closed
// after the first answer, as SetKeepAlivesEnabled(false) has it, it would take the other requests with it.
func closeHTTP1(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

// past is what a successor's page goes on from.
func (s *metricsServer) past() []byte {
	if s == nil {
		return nil
	}
	return s.page.Past()
}

// close answers who is connected, for a short time, and lets go of the socket. Who asks nothing, or does not read, is cut off.
func (s *metricsServer) close(ctx context.Context) error {
	if s == nil {
		return nil
	}
	s.page.Close()
	ctx, cancel := context.WithTimeout(ctx, metricsEnd)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close()
	}
	if served := <-s.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// A heldListener accepts nobody while it is held: who connects then is a successor's, if
// there is one by the end.
type heldListener struct {
	net.Listener

	mu      sync.Mutex
	changed sync.Cond // signalled when held or closed changes
	held    bool
	closed  bool
}

func newHeldListener(l net.Listener) *heldListener {
	h := &heldListener{Listener: l}
	h.changed.L = &h.mu
	return h
}

// hold keeps new connections waiting, or lets them in again.
func (l *heldListener) hold(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = on
	at := time.Time{}
	if on {
		at = time.Unix(1, 0) // ends an Accept under way
	}
	if d, ok := l.Listener.(interface{ SetDeadline(time.Time) error }); ok {
		_ = d.SetDeadline(at) // it fails when the socket is closed, which Accept finds out
	}
	l.changed.Broadcast()
}

// Accept implements [net.Listener].
func (l *heldListener) Accept() (net.Conn, error) {
	for {
		l.mu.Lock()
		for l.held && !l.closed {
			l.changed.Wait()
		}
		l.mu.Unlock()
		c, err := l.Listener.Accept()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return c, err
		}
	}
}

// Close implements [net.Listener].
func (l *heldListener) Close() error {
	l.mu.Lock()
	l.closed = true
	l.changed.Broadcast()
	l.mu.Unlock()
	return l.Listener.Close()
}
