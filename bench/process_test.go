// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"os"
	"testing"
	"time"
)

func TestListenerPID(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		port := uint16(l.Addr().(*net.TCPAddr).Port)
		// A connection has the port too, and does not listen.
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if pid, err := listenerPID(port); err != nil || pid != os.Getpid() {
			t.Errorf("%s: PID %d, %v; want %d", l.Addr(), pid, err, os.Getpid())
		}
		l.Close()
		if pid, err := listenerPID(port); err == nil {
			t.Errorf("%s, which is closed, is said to be of PID %d", l.Addr(), pid)
		}
	}
}

func TestProcess(t *testing.T) {
	pid := os.Getpid()
	before, err := cpuTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	for after := before; after < before+50*time.Millisecond; { // works meanwhile
		if after, err = cpuTime(pid); err != nil {
			t.Fatal(err)
		}
	}
	wakes, err := wakeUps(pid)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		time.Sleep(time.Millisecond)
	}
	if after, err := wakeUps(pid); err != nil || after < wakes+10 {
		t.Errorf("woken %d times, and %d after 20 naps, %v", wakes, after, err)
	}
	if rss, err := residentMemory(pid); err != nil || rss < 1<<20 || rss > 1<<30 {
		t.Errorf("%d bytes are resident, %v", rss, err)
	}
	const none = 1 << 30 // no PID is so high
	_, err1 := cpuTime(none)
	_, err2 := wakeUps(none)
	_, err3 := residentMemory(none)
	if err1 == nil || err2 == nil || err3 == nil {
		t.Errorf("no error for a process that is not there: %v, %v, %v", err1, err2, err3)
	}
}
