// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"time"

	"golang.org/x/sys/unix"
)

// Gone reports whether a process has ended with all of its threads, and waits that long for
// it; 0 is a look, and less than 0 waits without end. It is the fence behind which nothing
// of the process runs: no system call of it is still under way, such as a write that a thread
// was in when the process was killed.
//
// A pidfd becomes readable when the last thread has ended (pidfd_open(2)). That the process is a
// zombie says less: it is one as soon as its first thread has ended. What a process has
// left to the kernel to be done, by io_uring, is not behind the fence.
func Gone(pidfd int, wait time.Duration) bool {
	late := time.Now().Add(wait)
	for {
		timeout := -1
		if wait >= 0 {
			// Rounded up, or the last millisecond would be spent by polling.
			timeout = int((max(time.Until(late), 0) + time.Millisecond - 1) / time.Millisecond)
		}
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, timeout)
		if err != unix.EINTR {
			return err == nil && n == 1 && fds[0].Revents&unix.POLLIN != 0
		}
	}
}
