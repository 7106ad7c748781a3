// SPDX-License-Identifier: Apache-2.0

// Package headroom tells how much memory a process can take before the kernel ends it or another one.
package headroom

import (
	"bufio"
	"bytes"
	"math"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// Memory is what can still be taken.
type Memory struct {
	Bytes int64  // math.MaxInt64 if nothing tells
	Of    string // what limits it, for people
}

// Available asks the machine, and the control groups that the process is in (cgroups(7), versions 1 and 2). root
// is the file system's, "/" but in tests.
func Available(root string) Memory {
	m := Memory{math.MaxInt64, "the machine"}
	if text, err := os.ReadFile(filepath.Join(root, "proc/meminfo")); err == nil {
		if kib, ok := field(text, "MemAvailable:"); ok {
			m.Bytes = kib << 10
		}
	}
	text, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return m
	}
	for line := range strings.Lines(string(text)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, _ := strings.Cut(rest, ":")
		switch {
		case controllers == "":
			m.lower(filepath.Join(root, "sys/fs/cgroup"), group, &version2)
		case controllers == "memory" || strings.Contains(","+controllers+",", ",memory,"):
			m.lower(filepath.Join(root, "sys/fs/cgroup/memory"), group, &version1)
		}
	}
	return m
}

// files are those of a version of control groups.
type files struct{ limit, usage, reclaimable string }

var (
	version1 = files{"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "}
	version2 = files{"memory.max", "memory.current", "inactive_file "}
)

// lower heeds a group and those above it. In a namespace the path may be one that is not seen; the
// mount's root is the group then.
func (m *Memory) lower(mount, group string, f *files) {
	for {
		dir := filepath.Join(mount, group)
		if left, ok := f.left(dir); ok && left < m.Bytes {
			m.Bytes, m.Of = left, "the control group "+group
		}
		if group == "/" || group == "." || group == "" {
			return
		}
		group = path.Dir(group)
	}
}

// left is what a group's limit leaves; pages of files go before anything is ended.
func (f *files) left(dir string) (int64, bool) {
	limit, ok := number(filepath.Join(dir, f.limit))
	used, okUsed := number(filepath.Join(dir, f.usage))
	if !ok || !okUsed {
		return 0, false
	}
	if text, err := os.ReadFile(filepath.Join(dir, "memory.stat")); err == nil {
		if n, ok := field(text, f.reclaimable); ok {
			used -= n
		}
	}
	return max(limit-used, 0), true
}

// number reads a file with a number in it; "max" is none.
func number(path string) (int64, bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
	return n, err == nil
}

// field finds the number behind a name at the beginning of a line.
func field(text []byte, name string) (int64, bool) {
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), name); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
