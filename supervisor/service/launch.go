// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/supervisor"
)

// LaunchVerb is the hidden command with which a supervisor starts itself to
// become the service: only the process itself can set LISTEN_PID and
// WATCHDOG_PID to its PID before it executes the program.
const LaunchVerb = "__launch"

// reportVariable has the number of the descriptor on which Launch reports
// why it could not execute the program. It is closed by success.
const reportVariable = "UPGRADED_REPORT_FD"

// ownBinary is the supervisor's program as it runs, whatever is at its path by
// now.
const ownBinary = "/proc/self/exe"

// execTimeout bounds the time that the execution of a program may take.
const execTimeout = 10 * time.Second

// firstPassed is SD_LISTEN_FDS_START of sd_listen_fds(3).
const firstPassed = 3

// Launch becomes the program that args name. It returns only an error, which
// it has reported to the supervisor as well.
func Launch(args []string) error {
	fd, err := strconv.Atoi(os.Getenv(reportVariable))
	if err != nil || fd < firstPassed || len(args) == 0 {
		return fmt.Errorf("%s is for the supervisor's own use", LaunchVerb)
	}
	unix.CloseOnExec(fd)
	report := os.NewFile(uintptr(fd), "report")
	defer report.Close()
	err = become(args)
	_, _ = report.WriteString(err.Error())
	return err
}

func become(args []string) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	if err := os.Unsetenv(reportVariable); err != nil {
		return err
	}
	pid := strconv.Itoa(os.Getpid())
	for _, name := range []string{"LISTEN_PID", "WATCHDOG_PID"} {
		if os.Getenv(name) == "" {
			continue
		}
		if err := os.Setenv(name, pid); err != nil {
			return err
		}
	}
	return &os.PathError{Op: "exec", Path: path, Err: syscall.Exec(path, args, os.Environ())}
}

// A launch is what a service is started with.
type launch struct {
	command []string
	env     []string   // in addition to the supervisor's own
	files   []*os.File // what LISTEN_FDS counts
	names   []string   // one for each file
	vault   int        // the door of the vault, 0 for none
}

// start starts the service and returns its PID once the program is executed.
// A program that can't be executed is an error that says why. The caller
// reaps the process in either case in which the PID is not 0.
func (l launch) start() (pid int, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("can't start the service: %w", err)
	}
	defer r.Close()
	defer w.Close()
	files := []uintptr{0, 1, 2}
	var raw []syscall.RawConn
	for _, f := range append(append([]*os.File(nil), l.files...), w) {
		c, err := f.SyscallConn()
		if err != nil {
			return 0, fmt.Errorf("can't start the service: %w", err)
		}
		raw = append(raw, c)
	}
	err = withFDs(raw, &files, func() error {
		report := len(files) - 1
		if l.vault != 0 {
			files = append(files, uintptr(l.vault))
		}
		pid, err = syscall.ForkExec(ownBinary, append([]string{os.Args[0], LaunchVerb, "--"}, l.command...), &syscall.ProcAttr{
			Env:   l.environ(report),
			Files: files,
			Sys:   &syscall.SysProcAttr{Setpgid: true},
		})
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("can't start the service: %w", err)
	}
	_ = w.Close()
	if err := r.SetReadDeadline(time.Now().Add(execTimeout)); err != nil {
		return pid, err
	}
	text, err := io.ReadAll(io.LimitReader(r, 4096))
	if err != nil {
		return pid, fmt.Errorf("can't tell whether the service has started: %w", err)
	}
	if len(text) > 0 {
		return pid, fmt.Errorf("can't start the service: %s", text)
	}
	return pid, nil
}

// withFDs appends the descriptors of raw to fds and runs f while none of them
// can be closed.
func withFDs(raw []syscall.RawConn, fds *[]uintptr, f func() error) error {
	if len(raw) == 0 {
		return f()
	}
	var inner error
	err := raw[0].Control(func(fd uintptr) {
		*fds = append(*fds, fd)
		inner = withFDs(raw[1:], fds, f)
	})
	return errors.Join(err, inner)
}

// environ is the service's environment; report is the number of the report
// descriptor there.
func (l launch) environ(report int) []string {
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch name {
		case "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "MAINPID", supervisor.VaultVariable:
			continue // between systemd and the supervisor
		}
		env = append(env, v)
	}
	env = append(env, l.env...)
	env = append(env, reportVariable+"="+strconv.Itoa(report))
	if l.vault != 0 {
		env = append(env, supervisor.VaultVariable+"="+strconv.Itoa(report+1))
	}
	if len(l.files) > 0 {
		env = append(env,
			"LISTEN_PID=0", // Launch puts its own in
			"LISTEN_FDS="+strconv.Itoa(len(l.files)),
			"LISTEN_FDNAMES="+strings.Join(l.names, ":"))
	}
	return env
}
