// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/internal/unixhttp"
)

// metricsType is the text format of Prometheus. It is written here by hand: what a supervisor has
// to tell is little, and Prometheus's library would be most of its memory.
const metricsType = "text/plain; version=0.0.4; charset=utf-8"

// countReload notes how a reload has ended.
func (s *Service) countReload(err error) {
	s.reloads.Last = time.Now()
	if err != nil {
		s.reloads.Failed++
		return
	}
	s.reloads.Succeeded++
	s.reloads.LastGood = s.reloads.Last
}

// listenMetrics opens the socket at which Prometheus asks, if there is to be one.
func (s *Service) listenMetrics() error {
	if s.cfg.Metrics == "" {
		return nil
	}
	l, err := net.Listen("tcp", s.cfg.Metrics)
	if err != nil {
		return fmt.Errorf("can't serve metrics on %s: %w", s.cfg.Metrics, err)
	}
	s.metrics = l.(*net.TCPListener)
	return nil
}

// resumeMetrics takes the socket up that a supervisor before has left, 0 for none.
func (s *Service) resumeMetrics(fd int, take func(fd int, name string) *os.File) error {
	if fd == 0 {
		return s.listenMetrics()
	}
	f := take(fd, "metrics")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return err
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		_ = l.Close()
		return fmt.Errorf("its socket is a %T", l)
	}
	s.metrics = tcp
	return nil
}

// serveMetrics answers Prometheus until the service ends.
func (s *Service) serveMetrics() {
	if s.metrics == nil {
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", s.answerMetrics())
	server := unixhttp.Serve(s.metrics, mux, unixhttp.Options{ReadTimeout: 5 * time.Second, MaxHeader: 8 << 10, OneRequest: true})
	s.helpers.Go(func() {
		if err := server.Wait(); err != nil {
			s.log.Error("metrics are not served any more: restart the unit when it suits", "error", err)
		}
	})
	s.helpers.Go(func() {
		<-s.done
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = server.Close(ctx)
	})
}

// maxScrapes bounds the answers that are made at a time.
const maxScrapes = 4

// answerMetrics returns what answers with the metrics.
func (s *Service) answerMetrics() http.HandlerFunc {
	slots := make(chan struct{}, maxScrapes)
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			http.Error(w, "too many requests at a time", http.StatusServiceUnavailable)
			return
		}
		req := newRequest(verbStatus)
		defer close(req.sent)
		select {
		case s.requests <- req:
		case <-s.done:
			http.Error(w, "the supervisor is ending", http.StatusServiceUnavailable)
			return
		case <-r.Context().Done():
			return
		}
		select {
		case result := <-req.reply:
			w.Header().Set("Content-Type", metricsType)
			_, _ = io.WriteString(w, result.Status.metrics())
		case <-s.done:
			http.Error(w, "the supervisor is ending", http.StatusServiceUnavailable)
		}
	}
}

// exposition is a page of metrics in the making.
type exposition struct{ strings.Builder }

// family begins a metric.
func (e *exposition) family(name, kind, help string) {
	fmt.Fprintf(e, "# HELP upgraded_%[1]s %[3]s\n# TYPE upgraded_%[1]s %[2]s\n", name, kind, help)
}

// sample writes a value; label is a name and a value, or nothing.
func (e *exposition) sample(name string, value float64, label ...string) {
	e.WriteString("upgraded_" + name)
	if len(label) == 2 {
		quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(strings.ToValidUTF8(label[1], "\uFFFD"))
		fmt.Fprintf(e, `{%s="%s"}`, label[0], quoted)
	}
	e.WriteString(" " + strconv.FormatFloat(value, 'g', -1, 64) + "\n")
}

// one writes a metric that has one value.
func (e *exposition) one(name, kind, help string, value float64) {
	e.family(name, kind, help)
	e.sample(name, value)
}

// states are all that a service can be in.
var states = []State{Stopped, Starting, Serving, Reloading, Stopping, Waiting}

// metrics prints the status for Prometheus.
func (st *Status) metrics() string {
	e := new(exposition)
	e.family("build_info", "gauge", "The supervisor that runs; always 1.")
	e.sample("build_info", 1, "version", st.Supervisor.Version)
	e.one("start_time_seconds", "gauge", "When the supervisor was started, in seconds since 1970.", seconds(st.Supervisor.Started))
	e.one("reexecs_total", "counter", "How often the supervisor has replaced its own program.", float64(st.Supervisor.Reexecs))
	e.family("state", "gauge", "Whether the service is in a state.")
	for _, state := range states {
		e.sample("state", flag(state == st.State), "state", string(state))
	}
	if g := st.Main; g != nil {
		e.one("generation", "gauge", "Number of the process that serves, starts or stops; absent without any.", float64(g.Number))
		e.one("generation_start_time_seconds", "gauge", "When that process was started, in seconds since 1970.", seconds(g.Started))
	}
	e.one("retiring_generations", "gauge", "Processes that have handed over and have not ended.", float64(len(st.Retiring)))
	e.one("restarts_total", "counter", "How often the service was started anew after a death or a failed start.", float64(st.Restarts))
	e.family("stored_descriptors", "gauge", "Descriptors that the service has stored, by name.")
	for _, name := range slices.Sorted(maps.Keys(st.Stored)) {
		e.sample("stored_descriptors", float64(st.Stored[name]), "name", name)
	}
	if v := st.Vault; v != nil {
		e.family("vault_descriptors", "gauge", "Descriptors in the vault, by name.")
		for _, name := range slices.Sorted(maps.Keys(v.Names)) {
			e.sample("vault_descriptors", float64(v.Names[name]), "name", name)
		}
		e.one("vault_max_descriptors", "gauge", "How many descriptors the vault keeps at the most.", float64(v.Max))
		e.one("vault_refused_total", "counter", "Requests that the vault has refused since the supervisor was started or has replaced itself.", float64(v.Refused))
	}
	e.one("sockets", "gauge", "Listening sockets that are held for the service.", float64(len(st.Sockets)))
	r := &st.Reloads
	e.family("reloads_total", "counter", "Reloads that have ended.")
	e.sample("reloads_total", float64(r.Succeeded), "result", "success")
	e.sample("reloads_total", float64(r.Failed), "result", "failure")
	e.one("last_reload_successful", "gauge", "Whether the last reload has succeeded; 1 without any.", flag(r.Last.Equal(r.LastGood)))
	if !r.LastGood.IsZero() {
		e.one("last_reload_success_timestamp_seconds", "gauge", "When the last reload that has succeeded ended, in seconds since 1970; absent without any.", seconds(r.LastGood))
	}
	if st.Failure != nil {
		e.one("last_failure_timestamp_seconds", "gauge", "When something has failed last, in seconds since 1970; absent as long as nothing has.", seconds(st.Failure.Time))
	}
	return e.String()
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func flag(on bool) float64 {
	if on {
		return 1
	}
	return 0
}
