// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"regexp"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/test/peer"
)

// machine is what the figures were measured on.
type machine struct {
	CPU        string            `json:"cpu"`
	Cores      int               `json:"cores"`
	Memory     int64             `json:"memory"` // bytes
	Kernel     string            `json:"kernel"`
	FileSystem string            `json:"file_system"` // of the backing files
	Go         string            `json:"go"`
	Targets    map[string]string `json:"targets"` // versions, as are the clients'
	Clients    map[string]string `json:"clients"`
}

// thisMachine describes the machine and the programs in the run. Backing files
// are in dir.
func thisMachine(ctx context.Context, dir string, targets []running) machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version(), CPU: "not known", Targets: make(map[string]string),
		FileSystem: said(ctx, ".+", "findmnt", "-n", "-o", "FSTYPE", "-T", dir),
		Clients: map[string]string{
			"iscsi-perf": packageVersion(ctx, "libiscsi-bin"),
			"qemu-img":   said(ctx, `version \S+`, "qemu-img", "--version"),
			"load":       "this tree's internal/initiator",
		}}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if model := regexp.MustCompile(`(?m)^model name\s*: (.*)$`).FindSubmatch(b); model != nil {
			m.CPU = string(model[1])
		}
	}
	if kib, err := fieldOf("/proc/meminfo", "MemTotal:"); err == nil {
		m.Memory = kib << 10
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	for _, t := range targets {
		m.Targets[t.name] = t.version
	}
	return m
}

// packageVersion returns the release of a Debian package.
func packageVersion(ctx context.Context, name string) string {
	return said(ctx, ".+", "dpkg-query", "-W", "-f", "${Version}", name)
}

// said runs a program and returns the first of what it prints that matches, or
// "not known".
func said(ctx context.Context, pattern, program string, args ...string) string {
	out, err := peer.Run(ctx, program, args...)
	if found := regexp.MustCompile(pattern).FindString(strings.TrimSpace(out)); err == nil && found != "" {
		return found
	}
	return "not known"
}
