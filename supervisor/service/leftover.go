// SPDX-License-Identifier: Apache-2.0

package service

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/supervisor/internal/kernel"
)

// leftOverTime is the time that a process which has been killed has to end.
const leftOverTime = time.Second

// refuseLeftOvers returns an error if the service still runs because its supervisor was
// killed. Without systemd nothing has ended it, and a second instance would use the same
// disks or files. It is found by the NOTIFY_SOCKET in its environment.
func refuseLeftOvers(path string) error {
	late := time.Now().Add(leftOverTime)
	for _, pid := range notifiersOf(path) {
		if !endsBy(pid, late) {
			return fmt.Errorf("process %d of the service still runs, left by a supervisor that was killed: end it first", pid)
		}
	}
	return nil
}

// notifiersOf returns the processes that were started with this
// NOTIFY_SOCKET, of those whose environment can be read.
func notifiersOf(path string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	want := []byte("\x00NOTIFY_SOCKET=" + path + "\x00")
	var found []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		environ, err := os.ReadFile("/proc/" + e.Name() + "/environ")
		if err == nil && bytes.Contains(append([]byte{0}, environ...), want) {
			found = append(found, pid)
		}
	}
	return found
}

// endsBy waits for the end of a process, and reports whether it came in time.
func endsBy(pid int, late time.Time) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	return kernel.Gone(fd, max(time.Until(late), 0))
}
