// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// mainVariable makes the test binary be the program.
const mainVariable = "GOTGTD_TEST_BENCH_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainVariable) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// A run that is told to end, or that nobody listens to any more, leaves neither
// files nor processes behind.
func TestCleanUp(t *testing.T) {
	for name, end := range map[string]func(p *os.Process, out io.Closer) error{
		"output closed": func(_ *os.Process, out io.Closer) error { return out.Close() },
		"SIGINT":        func(p *os.Process, _ io.Closer) error { return p.Signal(syscall.SIGINT) },
		"SIGTERM":       func(p *os.Process, _ io.Closer) error { return p.Signal(syscall.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cmd := exec.Command(os.Args[0], "-quick", "-without", "tgt,istgt,gotgt", "-only", "depth 1 .load", "-length", "1h", "-parts", partCompare,
				"-dir", dir, "-o", filepath.Join(dir, "results.json"))
			cmd.Dir = ".." // where the program is built from
			cmd.Env = append(os.Environ(), mainVariable+"=yes")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			begun := false
			for lines := bufio.NewScanner(out); !begun && lines.Scan(); {
				begun = strings.HasPrefix(lines.Text(), "== "+partCompare)
			}
			if begun && len(commandsOf(t, dir)) == 0 {
				t.Error("no process runs out of the folder while the run is under way")
			}
			if err := end(cmd.Process, out); err != nil {
				t.Error(err)
			}
			err = cmd.Wait()
			if _, failed := err.(*exec.ExitError); !begun || !failed || cmd.ProcessState.ExitCode() != 1 {
				t.Errorf("the run ended with %v, having begun: %v\n%s", err, begun, &stderr)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
				t.Errorf("left in the folder: %v, %v", left, err)
			}
			if left := commandsOf(t, dir); len(left) != 0 {
				t.Errorf("processes left: %q", left)
			}
		})
	}
}

// commandsOf returns the command lines of processes whose program is under dir.
func commandsOf(t *testing.T, dir string) (lines []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range all {
		if program, err := os.Readlink(link); err == nil && strings.HasPrefix(program, dir) {
			line, _ := os.ReadFile(filepath.Join(filepath.Dir(link), "cmdline")) // it may just have ended
			lines = append(lines, string(line))
		}
	}
	return lines
}
