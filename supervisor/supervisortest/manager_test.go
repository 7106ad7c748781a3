// SPDX-License-Identifier: Apache-2.0

package supervisortest_test

import (
	"errors"
	"io"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/gotgtd/gotgtd/supervisor/notify"
	"github.com/gotgtd/gotgtd/supervisor/supervisortest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func client(m *supervisortest.Manager) notify.Client {
	return notify.NewClient(m.Env()[len("NOTIFY_SOCKET="):])
}

func TestManagerHears(t *testing.T) {
	m := supervisortest.New(t)
	c := client(m)
	if err := errors.Join(c.Send("STATUS=1 session"), c.Send("READY=1", "STATUS=2 sessions"), c.Barrier(t.Context())); err != nil {
		t.Fatal(err)
	}
	msg := m.Await("readiness", supervisortest.From(os.Getpid(), "READY=1", "STATUS=sessions"))
	if text, _ := msg.Field("STATUS"); text != "2 sessions" {
		t.Errorf("the status is %q", text)
	}
	for _, no := range []func(*notify.Message) bool{
		supervisortest.Has("STOPPING=1"), supervisortest.Has("READY=1", "STATUS=1 session"), supervisortest.From(1, "READY=1"),
	} {
		if m.Heard(no) != nil {
			t.Error("it has heard what nobody said")
		}
	}
}

func TestManagerStores(t *testing.T) {
	m := supervisortest.New(t)
	c := client(m)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := errors.Join(c.Store("a", w, w), c.Store("b", r), w.Close()); err != nil {
		t.Fatal(err)
	}
	m.Await("b", supervisortest.Has("FDSTORE=1", "FDNAME=b"))
	files, names := m.Stored()
	if len(files) != 3 || len(names) != 3 || names[2] != "b" {
		t.Fatalf("stored: %v", names)
	}
	if err := c.Unstore("a"); err != nil {
		t.Fatal(err)
	}
	// The end of the file comes when the last writer is closed.
	if text, err := io.ReadAll(r); err != nil || len(text) > 0 {
		t.Errorf("read %q, %v", text, err)
	}
	m.Await("the removal", supervisortest.Has("FDSTOREREMOVE=1"))
	if _, names = m.Stored(); len(names) != 1 || names[0] != "b" {
		t.Errorf("stored: %v", names)
	}
}
