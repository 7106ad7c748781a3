// SPDX-License-Identifier: Apache-2.0

package power

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"

	"github.com/gotgtd/gotgtd/test/peer"
)

// qmp is a connection to QEMU's monitor.
type qmp struct {
	conn net.Conn
	from *json.Decoder
}

func dialQMP(ctx context.Context, path string) (*qmp, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	q := &qmp{conn, json.NewDecoder(conn)}
	var greeting any
	if err := q.from.Decode(&greeting); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return q, q.ask("qmp_capabilities", nil, nil)
}

// ask runs a command and decodes what it returns.
func (q *qmp) ask(command string, arguments map[string]any, result any) error {
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	if err := json.NewEncoder(q.conn).Encode(request); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	for {
		var answer struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
		}
		switch err := q.from.Decode(&answer); {
		case err != nil:
			return fmt.Errorf("%s: %w", command, err)
		case answer.Error != nil:
			return fmt.Errorf("%s: %s", command, answer.Error.Desc)
		case answer.Return == nil: // an event
		case result == nil:
			return nil
		default:
			return json.Unmarshal(answer.Return, result)
		}
	}
}

// save writes the machine's state, all but its disks, to the file "state". The machine stands still
// then; it was running before, and so will be what begins with that state.
func (m *machine) save(ctx context.Context) error {
	q, err := dialQMP(ctx, m.path("qmp"))
	if err != nil {
		return fmt.Errorf("can't talk to QEMU: %w", err)
	}
	defer q.conn.Close()
	stop := context.AfterFunc(ctx, func() { q.conn.Close() })
	defer stop()
	err = errors.Join(q.ask("migrate-set-parameters", map[string]any{"max-bandwidth": int64(10e9)}, nil),
		q.ask("migrate", map[string]any{"uri": "exec:cat >" + m.path("state")}, nil))
	if err != nil {
		return err
	}
	return peer.Until(ctx, func() error {
		var status struct {
			Status string
			Detail string `json:"error-desc"`
		}
		if err := q.ask("query-migrate", nil, &status); err != nil {
			return err
		}
		if status.Status != "completed" {
			return fmt.Errorf("the machine's state is not saved: %s %s", status.Status, status.Detail)
		}
		return nil
	})
}
