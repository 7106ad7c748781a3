// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// userHZ is the unit of times in /proc/PID/stat (proc(5)): 100 a second on every
// architecture that Go runs on.
const userHZ = 100

// cpuTime returns the CPU time of a process and all its threads, those that have
// ended among them, to 10 ms.
func cpuTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The command's name, in parentheses, may hold anything.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	const user, system = 14 - 3, 15 - 3 // proc(5) counts from 1, and state is field 3
	if len(fields) <= system {
		return 0, fmt.Errorf("can't read the CPU time of process %d in %q", pid, b)
	}
	u, err := strconv.ParseUint(fields[user], 10, 62)
	s, err2 := strconv.ParseUint(fields[system], 10, 62)
	return time.Duration(u+s) * (time.Second / userHZ), errors.Join(err, err2)
}

// residentMemory returns the resident set of a process in bytes, counted page by
// page: the figure in /proc/PID/statm lags behind.
func residentMemory(pid int) (int64, error) {
	kib, err := fieldOf(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Rss:")
	return kib << 10, err
}

// wakeUps returns how often the threads that a process has now have been woken
// after waiting.
func wakeUps(pid int) (int64, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) == 0 {
		return 0, fmt.Errorf("can't list the threads of process %d: %w", pid, errors.Join(err, os.ErrNotExist))
	}
	var sum int64
	for _, path := range threads {
		n, err := fieldOf(path, "voluntary_ctxt_switches:")
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// fieldOf returns the number that follows a name at the beginning of a line.
func fieldOf(path, name string) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name {
			return strconv.ParseInt(f[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}

// listenerPID returns the process of this machine that listens on a TCP port.
func listenerPID(port uint16) (int, error) {
	var sockets []string // as their links in /proc/PID/fd read
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(table)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
		sockets = append(sockets, listeners(b, port)...)
	}
	if len(sockets) == 0 {
		return 0, fmt.Errorf("no process of this machine listens on port %d", port)
	}
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return 0, err
	}
	for _, fd := range fds {
		link, err := os.Readlink(fd)
		if err != nil {
			continue // closed meanwhile, or another user's
		}
		for _, s := range sockets {
			if link == s {
				return strconv.Atoi(strings.Split(fd, "/")[2])
			}
		}
	}
	return 0, fmt.Errorf("the process that listens on port %d can't be seen; try as root", port)
}

// listeners returns the sockets that listen on a port, from a table in the
// layout of /proc/net/tcp.
func listeners(table []byte, port uint16) (sockets []string) {
	const local, state, inode, listen = 1, 3, 9, "0A"
	scan := bufio.NewScanner(bytes.NewReader(table))
	for scan.Scan() {
		f := strings.Fields(scan.Text())
		if len(f) > inode && f[state] == listen && strings.HasSuffix(f[local], fmt.Sprintf(":%04X", port)) {
			sockets = append(sockets, "socket:["+f[inode]+"]")
		}
	}
	return sockets
}
