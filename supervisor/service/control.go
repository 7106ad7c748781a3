// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

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
	reply chan Result   // has room for the one answer
	sent  chan struct{} // closed when the answer has left
}

func newRequest(verb string) *request {
	return &request{verb, make(chan Result, 1), make(chan struct{})}
}

func (r *request) answer(result Result) { r.reply <- result }

// listenControl makes the control socket, which only its owner can use.
func listenControl(path string) (*net.UnixListener, error) {
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
	server := unixhttp.Serve(s.control, mux, unixhttp.Options{ReadTimeout: 5 * time.Second, MaxHeader: 8 << 10, OneRequest: true})
	s.helpers.Go(func() {
		if err := server.Wait(); err != nil {
			s.log.Error("the control socket is dead", "err", err)
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

// handle begins what a request asks for, or refuses it. It is answered at once
// or when the state settles.
func (s *Service) handle(r *request) {
	if r.verb == verbStatus {
		r.answer(s.result(nil))
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
	s.deaths = 0
	running := s.state == Serving
	if len(s.asked) > 0 {
		s.overtake(r.verb)
	}
	s.asked = append(s.asked, r)
	switch {
	case r.verb == verbStop:
		s.stop(aimStop)
	case r.verb == verbReload && running:
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
	case slices.Contains([]State{Starting, Reloading, Stopping}, s.state):
		return fmt.Errorf("can't %s: the service is %s", verb, s.state)
	}
	return nil
}

// overtake answers those who wait for what will not happen any more.
func (s *Service) overtake(verb string) {
	for _, r := range s.asked {
		r.answer(s.result(fmt.Errorf("overtaken by a request to %s", verb)))
	}
	s.asked = nil
}
