// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// script runs a session against a fake.
func script(t *testing.T, o Options, f func(f *fake) error) (*Session, context.Context) {
	t.Helper()
	o.Address, o.TargetName = newFake(t, nil, f), "iqn.2026-11.test:fake"
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	s, err := Dial(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, ctx
}

// expect reads a PDU and compares it with want.
func (f *fake) expect(want pdu.PDU) error {
	p, _, err := f.read()
	if err != nil {
		return err
	}
	if diff := cmp.Diff(want, p); diff != "" {
		return errors.New("unexpected PDU: " + diff)
	}
	return nil
}

// A target's ping is answered with its tag, also with nothing else under way.
func TestTargetPing(t *testing.T) {
	answered := make(chan struct{})
	script(t, Options{InitialCmdSN: 0}, func(f *fake) error {
		if err := f.write(&pdu.NOPIn{LUN: 5, InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: 77, Sequence: f.seq}, nil, nil); err != nil {
			return err
		}
		defer close(answered)
		return f.expect(&pdu.NOPOut{Immediate: true, LUN: 5, InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: 77, ExpStatSN: f.seq.StatSN})
	})
	<-answered
}

// A target that asks for a logout gets one when the commands under way have
// ended, and no new command before.
func TestLogoutRequested(t *testing.T) {
	told := make(chan struct{})
	finish := make(chan struct{})
	o := Options{OnAsync: func(m pdu.AsyncMessage, _ []byte) {
		if m.Event != pdu.AsyncLogoutRequest || m.Parameter3 != 9 {
			t.Errorf("asynchronous message %v", m)
		}
		close(told)
	}}
	s, ctx := script(t, o, func(f *fake) error {
		cmd, _, err := f.read()
		if err != nil {
			return err
		}
		if err := f.write(&pdu.AsyncMessage{Event: pdu.AsyncLogoutRequest, Parameter3: 9, Sequence: f.status()}, nil, nil); err != nil {
			return err
		}
		<-finish
		if err := good(nil, nil, nil)(f, cmd.(*pdu.SCSICommand)); err != nil {
			return err
		}
		p, _, err := f.read()
		if err != nil {
			return err
		}
		req, ok := p.(*pdu.LogoutRequest)
		if !ok || req.Reason != pdu.CloseSession {
			return errors.New("not a logout: " + p.String())
		}
		return f.write(&pdu.LogoutResponse{InitiatorTaskTag: req.InitiatorTaskTag, Sequence: f.status()}, nil, nil)
	})
	first := make(chan error, 1)
	cmd := &Command{Done: func(c *Command) { first <- c.Failed() }}
	if err := s.Submit(cmd); err != nil {
		t.Fatal(err)
	}
	<-told
	if err := s.Submit(&Command{Done: func(*Command) {}}); !errors.Is(err, ErrLogoutRequested) {
		t.Errorf("a command after the request: %v", err)
	}
	close(finish)
	if err := <-first; err != nil {
		t.Error(err)
	}
	select {
	case <-s.Done():
	case <-ctx.Done():
		t.Fatal("no end of the session")
	}
	if !errors.Is(s.Err(), ErrLoggedOut) {
		t.Errorf("the session ended with %v", s.Err())
	}
}

func TestDropped(t *testing.T) {
	for _, event := range []pdu.AsyncEvent{pdu.AsyncDropConnection, pdu.AsyncDropSession} {
		s, ctx := script(t, Options{}, func(f *fake) error {
			return f.write(&pdu.AsyncMessage{Event: event, Sequence: f.status()}, nil, nil)
		})
		select {
		case <-s.Done():
		case <-ctx.Done():
			t.Fatal("no end of the session")
		}
		if s.Err() == nil || s.Close() == nil {
			t.Errorf("event %d: the session ended without an error", event)
		}
	}
}

// Commands beyond the window wait, and go out in order when it opens.
func TestWindow(t *testing.T) {
	const commands = 40 // the fake's window is 33 wide
	s, _ := script(t, Options{}, func(f *fake) error {
		var held []*pdu.SCSICommand
		for len(held) < 33 {
			p, _, err := f.read()
			if err != nil {
				return err
			}
			held = append(held, p.(*pdu.SCSICommand))
		}
		f.seq.MaxCmdSN = 32
		for i := range commands {
			f.seq.MaxCmdSN++
			if err := f.write(&pdu.SCSIResponse{InitiatorTaskTag: held[i].InitiatorTaskTag, Sequence: f.status()}, nil, nil); err != nil {
				return err
			}
			if len(held) == commands {
				continue
			}
			max := f.seq.MaxCmdSN
			p, _, err := f.read()
			if err != nil {
				return err
			}
			f.seq.MaxCmdSN = max
			if got := p.(*pdu.SCSICommand); got.CmdSN != uint32(len(held)) || pdu.SNLess(max, got.CmdSN) {
				return errors.New("out of order or window: " + got.String())
			}
			held = append(held, p.(*pdu.SCSICommand))
		}
		return nil
	})
	done := make(chan *Command, commands)
	for range commands {
		if err := s.Submit(&Command{Done: func(c *Command) { done <- c }}); err != nil {
			t.Fatal(err)
		}
	}
	for range commands {
		if c := <-done; c.Failed() != nil {
			t.Fatal(c.Failed())
		}
	}
}

// An aborted command ends with the response to the abort; an answer to it
// afterwards is a violation.
func TestAbort(t *testing.T) {
	s, ctx := script(t, Options{}, func(f *fake) error {
		p, _, err := f.read()
		if err != nil {
			return err
		}
		cmd := p.(*pdu.SCSICommand)
		p, _, err = f.read()
		if err != nil {
			return err
		}
		req := p.(*pdu.TaskManagementRequest)
		if req.ReferencedTaskTag != cmd.InitiatorTaskTag || req.RefCmdSN != cmd.CmdSN || !req.Immediate {
			return errors.New("wrong reference: " + req.String())
		}
		if err := f.write(&pdu.TaskManagementResponse{InitiatorTaskTag: req.InitiatorTaskTag, Sequence: f.status()}, nil, nil); err != nil {
			return err
		}
		if err := good(nil, nil, nil)(f, cmd); err != nil {
			return err
		}
		_, _, err = f.read()
		return err
	})
	done := make(chan error, 1)
	cmd := &Command{LUN: LUN(1), Done: func(c *Command) { done <- c.Err }}
	if err := s.Submit(cmd); err != nil {
		t.Fatal(err)
	}
	if r, err := s.TaskManagement(ctx, pdu.AbortTask, LUN(1), cmd); err != nil || r != pdu.FunctionComplete {
		t.Fatalf("TaskManagement() = %d, %v", r, err)
	}
	if err := <-done; !errors.Is(err, ErrAborted) {
		t.Errorf("the command ended with %v", err)
	}
	<-s.Done()
	wantViolation(t, s.Err(), "no command with tag")
}

// A rejected command ends with the rejection, and the session goes on.
func TestReject(t *testing.T) {
	s, ctx := script(t, Options{}, func(f *fake) error {
		for {
			p, _, err := f.read()
			if err != nil {
				return err
			}
			var h pdu.BHS
			p.Encode(&h)
			if err := f.write(&pdu.Reject{Reason: pdu.CommandNotSupported, Sequence: f.status()}, h[:], nil); err != nil {
				return err
			}
		}
	})
	for range 2 {
		var rejected *RejectError
		if err := s.TestUnitReady(ctx, LUN(1)); !errors.As(err, &rejected) || rejected.Reason != pdu.CommandNotSupported {
			t.Fatalf("error %v, want a rejection", err)
		}
	}
}

// A command without an answer ends with its context, and the session with it.
func TestNoAnswer(t *testing.T) {
	s, ctx := script(t, Options{}, func(f *fake) error {
		_, err := io.Copy(io.Discard, f.conn)
		return err
	})
	ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := s.TestUnitReady(ctx, LUN(1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error %v, want the deadline's", err)
	}
	if s.Close() == nil {
		t.Error("Close() does not tell why the session ended")
	}
}

// What is written goes out while the target does not read, and Close still
// ends everything.
func TestTargetStopsReading(t *testing.T) {
	ended := make(chan struct{})
	s, _ := script(t, Options{ImmediateData: true, FirstBurstLength: 256 << 10, MaxBurstLength: 256 << 10}, func(f *fake) error {
		<-ended
		return nil
	})
	defer close(ended)
	done := make(chan error, 32)
	out := make([]byte, 256<<10)
	for range cap(done) {
		cmd := &Command{Out: out, Done: func(c *Command) { done <- c.Err }}
		if err := s.Submit(cmd); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for range cap(done) {
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Fatalf("a command ended with %v", err)
		}
	}
	if err := s.SendRaw(1, []byte("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("SendRaw() after the end: %v", err)
	}
}
