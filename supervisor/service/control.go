// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/gotgtd/gotgtd/internal/replace"
	"github.com/gotgtd/gotgtd/internal/unixhttp"
)

// The verbs of the control socket: POST /v1/VERB, and GET /v1/status.
const (
	verbReload  = "reload"
	verbRestart = "restart"
	verbStop    = "stop"
	verbReexec  = "reexec"
	verbStatus  = "status"
)

var verbs = []string{verbReload, verbRestart, verbStop, verbReexec, verbStatus}

// Result answers a request.
type Result struct {
	// Error is why the request was not fulfilled; empty if it was.
	Error string `json:"error,omitempty"`
	// Status is how things stood afterwards.
	Status Status `json:"status"`
}

// request is a verb on its way to the owner.
type request struct {
	verb  string
	until time.Time     // of one that waits: when it gives up
	reply chan Result   // has room for the one answer
	sent  chan struct{} // closed when the answer has left
}

func newRequest(verb string) *request {
	return &request{verb: verb, reply: make(chan Result, 1), sent: make(chan struct{})}
}

func (r *request) answer(result Result) { r.reply <- result }

// listenControl makes the control socket, which only its owner can use.
func listenControl(path string) (*net.UnixListener, error) {
	if err := replace.Folder(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("can't have the control socket there: %w", err)
	}
	if err := unixhttp.RemoveDead(path); err != nil {
		return nil, fmt.Errorf("can't make the control socket: %w", err)
	}
	l, err := unixhttp.ListenPrivate(func() (*net.UnixListener, error) {
		return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	})
	if err != nil {
		return nil, fmt.Errorf("can't make the control socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	return l, nil
}

// maxRequests bounds the requests that are dealt with at a time.
const maxRequests = 32

// serveControl answers requests until the control socket is closed.
func (s *Service) serveControl() {
	slots := make(chan struct{}, maxRequests)
	mux := http.NewServeMux()
	for _, verb := range verbs {
		method := http.MethodPost
		if verb == verbStatus {
			method = http.MethodGet
		}
		mux.HandleFunc(method+" /v1/"+verb, func(w http.ResponseWriter, r *http.Request) {
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
				s.answerHTTP(w, r, verb)
			default:
				http.Error(w, "too many requests at a time", http.StatusServiceUnavailable)
			}
		})
	}
	mux.HandleFunc("GET /metrics", s.answerMetrics())
	server := unixhttp.Serve(s.control, mux, unixhttp.Options{ReadTimeout: 5 * time.Second, MaxHeader: 8 << 10, OneRequest: true})
	s.helpers.Go(func() {
		if err := server.Wait(); err != nil {
			s.log.Error("the control socket is dead: restart the unit when it suits", "error", err)
		}
	})
	s.helpers.Go(func() {
		<-s.done
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = server.Close(ctx)
	})
}

func (s *Service) answerHTTP(w http.ResponseWriter, r *http.Request, verb string) {
	req := newRequest(verb)
	defer close(req.sent)
	var result Result
	select {
	case s.requests <- req:
		select {
		case result = <-req.reply:
		case <-r.Context().Done():
			return // nobody is there to be told
		case <-s.done:
			result.Error = "the supervisor is ending"
		}
	case <-s.done:
		result.Error = "the supervisor is ending"
	}
	code := http.StatusOK
	if result.Error != "" {
		code = http.StatusConflict
	}
	unixhttp.Reply(w, code, result)
}

// result makes the answer to a request that has failed with err, or been done.
func (s *Service) result(err error) Result {
	r := Result{Status: s.status()}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

// handle begins what a request asks for, refuses it, or has it wait. It is
// answered at once or when the state settles.
func (s *Service) handle(r *request) {
	if r.verb == verbStatus {
		r.answer(s.result(nil))
		return
	}
	if s.mustWait(r.verb) {
		s.wait(r)
		return
	}
	if err := s.refuse(r.verb); err != nil {
		r.answer(s.result(err))
		return
	}
	s.log.Info("request", "verb", r.verb, "state", string(s.state))
	if r.verb == verbReexec {
		s.handleReexec(r)
		return
	}
	overtaken := fmt.Errorf("overtaken by a request to %s", r.verb)
	s.answerAsked(overtaken)
	s.answerWaiting(overtaken)
	s.carryOut(r.verb, r)
}

// carryOut begins what requests of one verb ask for.
func (s *Service) carryOut(verb string, requests ...*request) {
	s.deaths = 0
	s.asked = requests
	switch {
	case verb == verbStop:
		s.stop(aimStop)
	case verb == verbReload && s.state == Serving:
		s.reload()
	default:
		s.stop(aimRestart)
	}
}

// handleReexec answers, because the program that would do so afterwards does
// not have the connection, and then replaces the supervisor.
func (s *Service) handleReexec(r *request) {
	err := s.prepareReexec()
	r.answer(s.result(err))
	if err == nil {
		timer := time.NewTimer(answerTime)
		defer timer.Stop()
		select {
		case <-r.sent:
		case <-timer.C:
		}
		err = s.reexec()
	}
	s.failed(fmt.Errorf("reexec: %w", err))
}

// answerTime bounds the wait for an answer to leave.
const answerTime = time.Second

// refuse reports why a verb can't be begun now. Stopping is always possible.
func (s *Service) refuse(verb string) error {
	switch {
	case s.quitting:
		return errors.New("the supervisor is ending")
	case verb == verbStop:
		return nil
	case s.busy():
		return fmt.Errorf("can't %s: the service is %s", verb, s.state)
	}
	return nil
}

// mustWait reports whether a request waits for the end of what is under way: a
// reload does during a start, a restart and another reload. What those start may
// have read an older configuration than the reload is about.
func (s *Service) mustWait(verb string) bool {
	return verb == verbReload && s.busy() && !s.quitting && (s.state != Stopping || s.aim == aimRestart)
}

// maxWaiting bounds the reloads that wait, to leave room for other requests
// (maxRequests) beside them and as many that are being carried out.
const maxWaiting = 8

// wait has a reload wait.
func (s *Service) wait(r *request) {
	if len(s.waiting) >= maxWaiting {
		r.answer(s.result(fmt.Errorf("can't reload: the service is %s, and %d reloads wait for that already", s.state, len(s.waiting))))
		return
	}
	s.log.Info("request waits", "verb", r.verb, "state", string(s.state))
	r.until = time.Now().Add(s.cfg.ReadyTimeout)
	s.waiting = append(s.waiting, r)
}

// attendWaiting carries out the reloads that wait, once nothing is under way any
// more, however that has ended. One is good for all, since it begins after each of
// them was asked for. Those that have waited too long are told so.
func (s *Service) attendWaiting(now time.Time) {
	if len(s.waiting) > 0 && !s.busy() {
		reloads := s.waiting
		s.waiting = nil
		s.log.Info("waiting reloads begin", "requests", len(reloads), "state", string(s.state))
		s.carryOut(verbReload, reloads...)
		return
	}
	for len(s.waiting) > 0 && !now.Before(s.waiting[0].until) {
		s.waiting[0].answer(s.result(fmt.Errorf("can't reload: the service is still %s, after a wait of %v", s.state, s.cfg.ReadyTimeout)))
		s.waiting = s.waiting[1:]
	}
}

// answerAsked answers those who wait for the state to settle.
func (s *Service) answerAsked(err error) {
	for _, r := range s.asked {
		r.answer(s.result(err))
	}
	s.asked = nil
}

// answerWaiting answers those whose reload will not begin.
func (s *Service) answerWaiting(err error) {
	for _, r := range s.waiting {
		r.answer(s.result(err))
	}
	s.waiting = nil
}
