// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/gotgtd/gotgtd/internal/unixhttp"
)

// maxAnswer bounds what a client reads of an answer, in bytes.
const maxAnswer = 1 << 20

// Client talks to a running supervisor.
type Client struct {
	// Control is the path of its control socket.
	Control string
}

// Status returns how things stand.
func (c Client) Status(ctx context.Context) (Result, error) {
	return c.do(ctx, http.MethodGet, verbStatus)
}

// Reload replaces the service by its next generation. It returns when that
// serves, or an error with the reason why the old one goes on.
func (c Client) Reload(ctx context.Context) (Result, error) {
	return c.do(ctx, http.MethodPost, verbReload)
}

// Restart stops the service and starts it. It returns when it serves.
func (c Client) Restart(ctx context.Context) (Result, error) {
	return c.do(ctx, http.MethodPost, verbRestart)
}

// Stop stops the service and returns when it has ended. The supervisor goes on
// holding the sockets; Reload and Restart start the service again.
func (c Client) Stop(ctx context.Context) (Result, error) {
	return c.do(ctx, http.MethodPost, verbStop)
}

// Reexec replaces the supervisor's own program and returns when the new one
// answers.
func (c Client) Reexec(ctx context.Context) (Result, error) {
	result, err := c.do(ctx, http.MethodPost, verbReexec)
	if err != nil {
		return result, err
	}
	// The control socket's backlog bridges the change.
	began := time.Now()
	before := result.Status.Supervisor.Reexecs
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		result, err = c.Status(ctx)
		if err == nil && result.Status.Supervisor.Reexecs > before {
			return result, nil
		}
		if f := result.Status.Failure; err == nil && f != nil && f.Time.After(began) {
			return result, errors.New(f.Reason)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return result, fmt.Errorf("the new supervisor does not answer: %w", errors.Join(context.Cause(ctx), err))
		}
	}
}

func (c Client) do(ctx context.Context, method, verb string) (Result, error) {
	resp, err := unixhttp.NewClient(c.Control, "upgraded", "/v1/"+verbStatus, maxAnswer).Do(ctx, method, "/v1/"+verb, nil)
	if err != nil {
		return Result{}, fmt.Errorf("can't reach the supervisor: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return Result{}, fmt.Errorf("can't read the supervisor's answer: %w", err)
	}
	var result Result
	if err := json.Unmarshal(text, &result); err != nil {
		return Result{}, fmt.Errorf("the supervisor answered %s: %.100s", resp.Status, text)
	}
	if result.Error != "" {
		return result, errors.New(result.Error)
	}
	return result, nil
}
