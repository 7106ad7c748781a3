// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/prometheus/procfs"
)

// cpuTime returns the CPU time of a process and all its threads, those that have
// ended among them, to 10 ms.
func cpuTime(pid int) (time.Duration, error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0, err
	}
	stat, err := p.Stat()
	return time.Duration(stat.CPUTime() * float64(time.Second)), err
}

// residentMemory returns the resident set of a process in bytes, counted page by
// page: the figure in /proc/PID/statm lags behind.
func residentMemory(pid int) (int64, error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0, err
	}
	sums, err := p.ProcSMapsRollup()
	return int64(sums.Rss), err
}

// wakeUps returns how often the threads that a process has now have been woken
// after waiting.
func wakeUps(pid int) (int64, error) {
	threads, err := procfs.AllThreads(pid)
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, t := range threads {
		status, err := t.NewStatus()
		if err != nil {
			return 0, err
		}
		sum += int64(status.VoluntaryCtxtSwitches)
	}
	return sum, nil
}

// memoryInfo returns what /proc/meminfo has.
func memoryInfo() (procfs.Meminfo, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return procfs.Meminfo{}, err
	}
	return fs.Meminfo()
}

// listenerPID returns the process of this machine that listens on a TCP port.
func listenerPID(port uint16) (int, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return 0, err
	}
	sockets, err := listeners(fs, port)
	if err != nil {
		return 0, err
	}
	if len(sockets) == 0 {
		return 0, fmt.Errorf("no process of this machine listens on port %d", port)
	}
	processes, err := fs.AllProcs()
	if err != nil {
		return 0, err
	}
	for _, p := range processes {
		// Some have ended meanwhile, or are another user's.
		targets, _ := p.FileDescriptorTargets()
		if slices.ContainsFunc(targets, func(t string) bool { return slices.Contains(sockets, t) }) {
			return p.PID, nil
		}
	}
	return 0, fmt.Errorf("the process that listens on port %d can't be seen; try as root", port)
}

// listeners returns the sockets that listen on a port, as their links in /proc/PID/fd read.
func listeners(fs procfs.FS, port uint16) (sockets []string, err error) {
	const listen = 0x0a // TCP_LISTEN
	ipv4, err := fs.NetTCP()
	ipv6, err6 := fs.NetTCP6()
	if errors.Is(err6, os.ErrNotExist) { // a kernel without IPv6
		err6 = nil
	}
	for _, s := range slices.Concat(ipv4, ipv6) {
		if s.St == listen && s.LocalPort == uint64(port) {
			sockets = append(sockets, fmt.Sprintf("socket:[%d]", s.Inode))
		}
	}
	return sockets, errors.Join(err, err6)
}
