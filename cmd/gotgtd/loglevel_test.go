// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/target/control"
)

// TestLogLevel changes what is logged, over an upgrade too.
func TestLogLevel(t *testing.T) {
	d := startDaemon(t)
	if got := d.output(t, "log-level"); got != "info\n" {
		t.Errorf("log-level at first: %q", got)
	}
	d.output(t, "log-level", "warn") // of which nothing is logged
	if got := d.output(t, "upgrade"); !strings.Contains(got, "generation 2") {
		t.Errorf("upgrade prints %q", got)
	}
	var l control.LogLevel
	if err := json.Unmarshal([]byte(d.output(t, "log-level", "--json")), &l); err != nil || l.Level != "warn" {
		t.Errorf("log-level after an upgrade: %+v, %v", l, err)
	}
	d.output(t, "log-level", "DEBUG")
	if line := d.waitFor(t, "log level changed"); !strings.Contains(line, "level=debug") || !strings.Contains(line, "level=INFO") {
		t.Errorf("logged: %s", line)
	}
	d.output(t, "upgrade")
	// At the level of the command line the lines of the successor's upgrade would be missing.
	if line := d.waitFor(t, "upgraded"); !strings.Contains(line, "generation=3") {
		t.Errorf("logged: %s", line)
	}
	if got := d.output(t, "log-level"); got != "debug\n" {
		t.Errorf("log-level after another upgrade: %q", got)
	}
}

// TestLogFormat has a daemon log JSON.
func TestLogFormat(t *testing.T) {
	d := launchDaemon(t, func(*exec.Cmd) {}, "--disk", t.TempDir()+"/disk.img,size=1MiB", "--log-format", "json")
	var line struct {
		Msg, Target string
		LUN         int
	}
	text := d.waitFor(t, `"msg":"serving"`)
	if err := json.Unmarshal([]byte(text), &line); err != nil || line.Target != defaultTarget || line.LUN != 1 {
		t.Errorf("logged %s: %+v, %v", text, line, err)
	}
}
