// SPDX-License-Identifier: Apache-2.0

//go:build handofffault

package handoff

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// at makes the process fail at the step that HANDOFF_FAULT names, such as
// "new.prepared=kill": "kill" and "stop" send the process SIGKILL or SIGSTOP,
// "exit" exits with status 3.
func at(step string) {
	name, what, _ := strings.Cut(os.Getenv("HANDOFF_FAULT"), "=")
	if name != step {
		return
	}
	switch what {
	case "kill":
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {} // another thread may take the signal
	case "stop":
		_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
		select {}
	case "exit":
		os.Exit(3)
	}
}

// schemas is as if this were a build of years later or before if HANDOFF_FAULT
// is "new.schemas=later" or "new.schemas=earlier".
func schemas() (oldest, newest int) {
	switch os.Getenv("HANDOFF_FAULT") {
	case "new.schemas=later":
		return Schema + 1, Schema + 3
	case "new.schemas=earlier":
		return 0, Schema - 1
	}
	return 1, Schema
}
