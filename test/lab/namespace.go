// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/test/peer"
)

// The addresses at which machines find this program's side. Each is on a network of
// its own.
const (
	HostAddress  = "172.16.31.1"
	HostAddress2 = "172.16.32.1"
)

// bridges are the networks.
var bridges = []struct{ name, address string }{
	{"lab0", HostAddress},
	{"lab1", HostAddress2},
}

// maxMachines is how many machines have a place on the networks.
const maxMachines = 4

// MachineAddress is a machine's address on the first network.
func MachineAddress(machine int) string { return fmt.Sprintf("172.16.31.%d", 10+machine) }

// Tap is the name of a machine's interface on one of the networks, 0 or 1.
func Tap(machine, network int) string { return fmt.Sprintf("tap%d-%d", machine, network) }

// insideVariable tells the program that it is the one within the namespaces; its value is
// the work folder.
const insideVariable = "GOTGTD_LAB_INSIDE"

// enter runs this program again with args, as the first process of namespaces of its own,
// which prints to out. However that process ends, the kernel ends all that are in
// its PID namespace, and removes their networks.
func enter(ctx context.Context, work string, args []string, out io.Writer) error {
	// The kernel sends the parent's death signal when the thread ends that started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), insideVariable+"="+work)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTime
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("interrupted: %w", err)
	}
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("can't run in namespaces of its own (that takes root): %w", err)
	}
	return err
}

// furnish makes the namespaces usable: a /proc of these processes, and the networks.
func furnish(ctx context.Context) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("can't make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("can't mount /proc: %w", err)
	}
	ip := [][]string{{"link", "set", "lo", "up"}}
	for i, b := range bridges {
		ip = append(ip,
			[]string{"link", "add", b.name, "type", "bridge"},
			[]string{"addr", "add", b.address + "/24", "dev", b.name},
			[]string{"link", "set", b.name, "up"})
		for n := 1; n <= maxMachines; n++ {
			ip = append(ip,
				[]string{"tuntap", "add", "dev", Tap(n, i), "mode", "tap"},
				[]string{"link", "set", Tap(n, i), "master", b.name, "up"})
		}
	}
	for _, args := range ip {
		if _, err := peer.Run(ctx, "ip", args...); err != nil {
			return err
		}
	}
	return nil
}

// inside returns the work folder if this is the process within the namespaces.
func inside() (work string, ok bool) { return os.LookupEnv(insideVariable) }

// dieWithParent has the kernel ask this process to end when its parent ends: `go run`
// does not pass signals on.
func dieWithParent() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		return fmt.Errorf("can't ask for a signal at the parent's end: %w", err)
	}
	return nil
}
