// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/gotgtd/gotgtd/internal/unixhttp"
	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/handoff"
	"github.com/gotgtd/gotgtd/target/overlay"
	"github.com/gotgtd/gotgtd/target/plan"
)

// Client talks to a daemon.
type Client struct {
	socket string
	http   *unixhttp.Client
}

// NewClient returns a client of the daemon that listens on a socket.
func NewClient(socket string) *Client {
	return &Client{socket, unixhttp.NewClient(socket, "gotgtd", "/v1/status", maxAnswer)}
}

// Status asks for the daemon's status.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	st := new(Status)
	if err := c.call(ctx, http.MethodGet, "/v1/status", st); err != nil {
		return nil, err
	}
	return st, nil
}

// Running asks for what the daemon serves, for a plan.
func (c *Client) Running(ctx context.Context) (*plan.Running, error) {
	r := new(plan.Running)
	if err := c.call(ctx, http.MethodGet, "/v1/running", r); err != nil {
		return nil, err
	}
	return r, nil
}

// Change carries out operations of tgtadm, all or none.
func (c *Client) Change(ctx context.Context, ops ...overlay.Operation) error {
	return c.exchange(ctx, http.MethodPost, "/v1/running", ops, new(struct{}))
}

// TgtWords returns what tgt says in the case of an error of the daemon's, or "".
func TgtWords(err error) string {
	var failed *upgradeError
	if errors.As(err, &failed) {
		return failed.tgt
	}
	return ""
}

// EndSession ends a session, and waits for that. rejectFor is how long its
// initiator may not log in to the target again, 0 for not at all.
func (c *Client) EndSession(ctx context.Context, tsih uint16, rejectFor time.Duration) (*target.SessionEnd, error) {
	path := fmt.Sprintf("/v1/sessions/%d", tsih)
	if rejectFor > 0 {
		path += "?reject-for=" + rejectFor.String()
	}
	end := new(target.SessionEnd)
	if err := c.call(ctx, http.MethodDelete, path, end); err != nil {
		return nil, err
	}
	return end, nil
}

// ForceUpgrade is [Client.Upgrade] for a configuration that the daemon would
// refuse because it hurts initiators that are logged in.
func (c *Client) ForceUpgrade(ctx context.Context, timeout time.Duration) (*handoff.Report, error) {
	return c.upgrade(ctx, timeout, url.Values{"force": {"true"}})
}

// Upgrade asks the daemon to replace itself within the timeout, 0 for the
// daemon's own limit, and waits for the outcome. With an error the report says
// how far things went, or is nil.
func (c *Client) Upgrade(ctx context.Context, timeout time.Duration) (*handoff.Report, error) {
	return c.upgrade(ctx, timeout, url.Values{})
}

func (c *Client) upgrade(ctx context.Context, timeout time.Duration, values url.Values) (*handoff.Report, error) {
	if timeout > 0 {
		values.Set("timeout", timeout.String())
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, upgradeFactor*timeout+readTimeout)
		defer cancel()
	}
	r := new(handoff.Report)
	err := c.call(ctx, http.MethodPost, "/v1/upgrade?"+values.Encode(), r)
	var failed *upgradeError
	if errors.As(err, &failed) {
		return failed.report, err
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// upgradeError is an upgrade that did not happen.
type upgradeError struct {
	what   string
	report *handoff.Report
	tgt    string
}

func (e *upgradeError) Error() string { return e.what }

// A process that has handed over sends its clients to the successor, which
// is there in a moment.
const (
	leftRetries = 100
	leftPause   = 20 * time.Millisecond
)

// errElsewhere is the answer of a process that has handed over.
var errElsewhere = errors.New("gotgtd has handed over, and no successor answers")

// call makes a request and decodes the answer.
func (c *Client) call(ctx context.Context, method, path string, answer any) error {
	return c.exchange(ctx, method, path, nil, answer)
}

// exchange is call with a body, unless question is nil.
func (c *Client) exchange(ctx context.Context, method, path string, question, answer any) error {
	var body []byte
	if question != nil {
		var err error
		if body, err = json.Marshal(question); err != nil {
			return err
		}
	}
	for try := 0; ; try++ {
		asked := time.Now()
		err := c.once(ctx, method, path, body, answer)
		if time.Since(asked) > leftPause {
			try = 0 // a process that is there had us wait for its turn
		}
		if !errors.Is(err, errElsewhere) || try == leftRetries {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(leftPause):
		}
	}
}

func (c *Client) once(ctx context.Context, method, path string, question []byte, answer any) error {
	resp, err := c.http.Do(ctx, method, path, question)
	if method == http.MethodGet && errors.Is(err, io.EOF) {
		return errElsewhere // the process has ended meanwhile
	}
	var silent *unixhttp.SilentError
	if errors.As(err, &silent) {
		return silent
	}
	if err != nil {
		return fmt.Errorf("can't reach gotgtd through %q (does it run, as this user or with this --control?): %w", c.socket, errors.Unwrap(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusServiceUnavailable {
		return errElsewhere
	}
	body := json.NewDecoder(resp.Body)
	if resp.StatusCode != http.StatusOK {
		var p problem
		if err := body.Decode(&p); err != nil {
			return fmt.Errorf("gotgtd answers %s", resp.Status)
		}
		return &upgradeError{p.Error, p.Report, p.Tgt}
	}
	if err := body.Decode(answer); err != nil {
		return fmt.Errorf("can't read gotgtd's answer: %w", err)
	}
	return nil
}
