// SPDX-License-Identifier: Apache-2.0

package headroom

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// system makes a file system with these files.
func system(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, text := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestAvailable(t *testing.T) {
	const (
		meminfo = "MemTotal:       1000 kB\nMemAvailable:    500 kB\n"
		v1      = "4:cpu,memory:/a/b\n0::/\n"
	)
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
		of    string
	}{
		"nothing tells": {nil, math.MaxInt64, "the machine"},
		"the machine":   {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a\n"}, 500 << 10, "the machine"},
		"no limit": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a\n",
			"sys/fs/cgroup/a/memory.max": "max\n", "sys/fs/cgroup/a/memory.current": "7\n"}, 500 << 10, "the machine"},
		"a group": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a\n",
			"sys/fs/cgroup/a/memory.max": "1000\n", "sys/fs/cgroup/a/memory.current": "700\n", "sys/fs/cgroup/a/memory.stat": "anon 1\ninactive_file 100\n"}, 400, "/a"},
		"more than its limit": {map[string]string{"proc/self/cgroup": "0::/a\n",
			"sys/fs/cgroup/a/memory.max": "1000\n", "sys/fs/cgroup/a/memory.current": "1700\n"}, 0, "/a"},
		"a group above": {map[string]string{"proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/memory.max": "1000\n", "sys/fs/cgroup/a/memory.current": "900\n",
			"sys/fs/cgroup/a/b/memory.max": "500\n", "sys/fs/cgroup/a/b/memory.current": "100\n"}, 100, "/a"},
		"version 1": {map[string]string{"proc/self/cgroup": v1,
			"sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "1000\n", "sys/fs/cgroup/memory/a/b/memory.usage_in_bytes": "900\n",
			"sys/fs/cgroup/memory/a/b/memory.stat": "inactive_file 1\ntotal_inactive_file 50\n"}, 150, "/a/b"},
		"in a namespace": {map[string]string{"proc/self/cgroup": v1,
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "1000\n", "sys/fs/cgroup/memory/memory.usage_in_bytes": "900\n"}, 100, "/"},
	} {
		t.Run(name, func(t *testing.T) {
			if m := Available(system(t, c.files)); m.Bytes != c.want || !strings.HasSuffix(m.Of, c.of) {
				t.Errorf("%+v, want %d of %s", m, c.want, c.of)
			}
		})
	}
}

// TestHere asks this machine.
func TestHere(t *testing.T) {
	if m := Available("/"); m.Bytes <= 0 || m.Bytes == math.MaxInt64 {
		t.Errorf("%+v", m)
	}
}
