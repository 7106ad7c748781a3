// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gotgtd/gotgtd/internal/proc"
	"github.com/gotgtd/gotgtd/internal/unixhttp"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/control"
)

// defaultConfig is where the units have the configuration.
const defaultConfig = "/etc/gotgtd/gotgtd.yaml"

// recentLines is how much of the log is in an archive.
const recentLines = 5000

// support collects what a bug report needs.
type support struct {
	client  *control.Client
	socket  string
	file    string        // of the configuration; empty: what the daemon says
	answer  time.Duration // how long each may take to answer
	secrets secretList

	status *control.Status // nil: it has not answered
	silent error           // why; then it is not asked again
}

func newSupport(c *cobra.Command, file string) *support {
	return &support{client: client(c), socket: c.Flag("control").Value.String(), file: file, answer: supportAnswer}
}

// members are what is collected, in order: what others need comes first.
func (s *support) members() []supportMember {
	return []supportMember{
		{"status.json", "what gotgtd show --json prints", s.collectStatus},
		{"config.yaml", "the configuration that runs, or that of the file if the daemon does not answer, without its secrets", s.collectConfig},
		{"version.txt", "versions of this program and of the daemon", s.collectVersion},
		{"show.txt", "what gotgtd show prints", s.collectShow},
		{"sessions.txt", "what gotgtd sessions prints", s.collectSessions},
		{"top.txt", "what was done within a second", s.collectTop},
		{"plan.txt", "what a reload would change", s.collectPlan},
		{"metrics.txt", "the daemon's metrics", s.collectMetrics},
		{"goroutines.txt", "what the daemon does", s.collectGoroutines},
		{"recent.txt", "the last lines that the daemon has logged since the last upgrade, at most 128 KiB", s.collectRecent},
		{"upgraded.json", "what upgraded says of the service", s.collectSupervisor},
		{"log.txt", "the end of the log", s.collectLog},
		{"process.txt", "what the kernel knows of the daemon: limits, memory, what its threads wait for, descriptors", s.collectProcess},
		{"system.txt", "the machine: kernel, memory, load, file systems", s.collectSystem},
	}
}

func (s *support) collectStatus(ctx context.Context) (string, error) {
	if s.status, s.silent = s.client.Status(ctx); s.silent != nil {
		if errors.Is(s.silent, context.DeadlineExceeded) {
			s.silent = fmt.Errorf("the daemon has not answered for %v: %w", s.answer, s.silent)
		}
		return "", s.silent
	}
	var b strings.Builder
	err := printJSON(&b, s.status)
	return b.String(), err
}

// collectConfig also learns the secrets that must be nowhere. What the daemon does not tell is read from its file.
func (s *support) collectConfig(ctx context.Context) (string, error) {
	path := s.configFile()
	s.secrets.addFile(path)
	var err error
	if s.silent == nil {
		var text string
		if text, err = s.collectRunningConfig(ctx); text != "" {
			return text, err
		}
	}
	conf, loadErr := config.LoadToPlan(path, nil, nil)
	if loadErr != nil {
		return "", errors.Join(err, fmt.Errorf("the daemon does not tell, and %w", loadErr))
	}
	s.secrets.addConfig(conf)
	text, textErr := conf.YAML(false)
	return fmt.Sprintf("# %s, not what runs: the daemon does not answer\n%s", path, text), errors.Join(err, textErr)
}

// collectRunningConfig is what runs; "" if the daemon does not tell.
func (s *support) collectRunningConfig(ctx context.Context) (string, error) {
	running, err := s.client.Running(ctx)
	if err == nil && running.Overlay != nil {
		for _, op := range running.Overlay.Operations {
			s.secrets.add(op.Password)
		}
	}
	if whole, wholeErr := runningConfig(ctx, s.client); wholeErr == nil {
		s.secrets.addConfig(whole)
	} else {
		err = errors.Join(err, wholeErr)
	}
	conf, confErr := s.client.Config(ctx, false)
	if err = errors.Join(err, confErr); confErr != nil {
		return "", err
	}
	return conf.Config, err
}

// configFile is the path of the configuration.
func (s *support) configFile() string {
	switch {
	case s.file != "":
		return s.file
	case s.status != nil:
		return s.status.Config
	}
	return defaultConfig
}

func (s *support) collectVersion(context.Context) (string, error) {
	text := fmt.Sprintf("this program: gotgtd %s\n", versionString())
	if s.status != nil {
		text += fmt.Sprintf("the daemon: gotgtd %s, generation %d, PID %d, since %s\n", s.status.Version, s.status.Generation, s.status.PID, s.status.Started.Format(time.RFC3339))
	}
	if i, ok := debug.ReadBuildInfo(); ok {
		text += "\nthis program's build:\n" + i.String()
	}
	return text, nil
}

func (s *support) collectShow(context.Context) (string, error) {
	if s.silent != nil {
		return "", s.silent
	}
	var b strings.Builder
	writeUpgrades(&b, s.status.Upgrades)
	writeTargets(&b, s.status, sizes(false).shown)
	return b.String(), nil
}

func (s *support) collectSessions(context.Context) (string, error) {
	if s.silent != nil {
		return "", s.silent
	}
	var b strings.Builder
	err := writeSessions(&b, s.status.Sessions, time.Now(), false)
	return b.String(), errors.Join(err, writeRejections(&b, s.status.Rejections, time.Now()))
}

func (s *support) collectTop(ctx context.Context) (string, error) {
	if s.silent != nil {
		return "", s.silent
	}
	var b strings.Builder
	for _, v := range topViews() {
		m := &topModel{view: v, by: byIO, delay: time.Second / 3}
		poll := func(ctx context.Context) (*topSample, error) { return takeSample(ctx, s.client, &selection{lun: -1}) }
		if err := topBatch(ctx, &b, m, 1, poll); err != nil {
			return b.String(), err
		}
		b.WriteString("\n")
	}
	return b.String(), nil
}

func (s *support) collectPlan(ctx context.Context) (string, error) {
	if s.silent != nil {
		return "", s.silent
	}
	p, err := makePlan(ctx, s.client, s.file)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if err := printPlan(&b, &b, p, false); err != nil && !errors.As(err, new(errReported)) {
		return b.String(), err
	}
	return b.String(), nil
}

func (s *support) diagnosis(ctx context.Context) (*control.Diagnosis, error) {
	if s.silent != nil {
		return nil, s.silent
	}
	d, err := s.client.Diagnosis(ctx)
	if err == nil && d.Error != "" {
		err = errors.New(d.Error)
	}
	return d, err
}

func (s *support) collectMetrics(ctx context.Context) (string, error) {
	d, err := s.diagnosis(ctx)
	if d == nil {
		return "", err
	}
	return d.Metrics, err
}

func (s *support) collectGoroutines(ctx context.Context) (string, error) {
	d, err := s.diagnosis(ctx)
	if d == nil {
		return "", err
	}
	return d.Goroutines, err
}

func (s *support) collectRecent(ctx context.Context) (string, error) {
	d, err := s.diagnosis(ctx)
	if d == nil {
		return "", err
	}
	return d.Log, nil
}

// collectSupervisor asks upgraded, whose socket is beside the daemon's.
func (s *support) collectSupervisor(ctx context.Context) (string, error) {
	socket := filepath.Join(filepath.Dir(s.socket), "upgraded.sock")
	resp, err := unixhttp.NewClient(socket, "upgraded", "/v1/status", maxMember).Do(ctx, "GET", "/v1/status", nil)
	if err != nil {
		return "", fmt.Errorf("upgraded does not answer on %s (without it, that is so): %w", socket, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// pid is the daemon's process, 0 if it can't be told.
func (s *support) pid() int {
	if s.status != nil {
		return s.status.PID
	}
	for _, pid := range proc.UnixListeners(s.socket) {
		return pid
	}
	return 0
}

// collectLog takes the log from the journal, or from the file that standard error is.
func (s *support) collectLog(ctx context.Context) (string, error) {
	pid := s.pid()
	if pid != 0 {
		if path, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/2", pid)); err == nil && filepath.IsAbs(path) && !strings.HasPrefix(path, "/dev/") {
			return readEnd(path)
		}
	}
	text, err := output(ctx, "journalctl", "--no-pager", "--output", "short-iso-precise", "--lines", strconv.Itoa(recentLines),
		"SYSLOG_IDENTIFIER=gotgtd", "+", "SYSLOG_IDENTIFIER=upgraded", "+", "_SYSTEMD_UNIT=gotgtd.service")
	if err == nil && strings.Count(text, "\n") < 2 {
		err = errors.New("the journal has no lines of gotgtd: add the log by hand, if it goes elsewhere")
	}
	return text, err
}

// readEnd reads the end of a file.
func readEnd(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !st.Mode().IsRegular():
		return "", fmt.Errorf("%s is no regular file", path)
	}
	text, err := io.ReadAll(io.NewSectionReader(f, max(st.Size()-maxMember, 0), maxMember))
	return string(text), err
}

func (s *support) collectProcess(context.Context) (string, error) {
	pid := s.pid()
	if pid == 0 {
		return "", fmt.Errorf("no process listens on %s", s.socket)
	}
	dir := fmt.Sprintf("/proc/%d", pid)
	var b strings.Builder
	var errs []error
	for _, name := range []string{"cmdline", "status", "limits", "cgroup", "smaps_rollup", "io", "schedstat"} {
		errs = append(errs, section(&b, filepath.Join(dir, name)))
	}
	tasks, err := os.ReadDir(filepath.Join(dir, "task"))
	errs = append(errs, err)
	for _, t := range tasks {
		for _, name := range []string{"comm", "stat", "wchan", "stack"} {
			errs = append(errs, section(&b, filepath.Join(dir, "task", t.Name(), name)))
		}
	}
	links, err := os.ReadDir(filepath.Join(dir, "fd"))
	errs = append(errs, err)
	fmt.Fprintf(&b, "== %s/fd: %d descriptors\n", dir, len(links))
	for _, l := range links {
		if to, err := os.Readlink(filepath.Join(dir, "fd", l.Name())); err == nil {
			fmt.Fprintf(&b, "%s -> %s\n", l.Name(), to)
		}
	}
	return b.String(), errors.Join(errs...)
}

func (s *support) collectSystem(ctx context.Context) (string, error) {
	var b strings.Builder
	var errs []error
	for _, path := range []string{
		"/proc/version", "/etc/os-release", "/proc/loadavg", "/proc/meminfo", "/proc/pressure/cpu", "/proc/pressure/io", "/proc/pressure/memory",
		"/proc/sys/net/core/somaxconn", "/proc/sys/net/ipv4/tcp_wmem", "/proc/sys/net/ipv4/tcp_rmem", "/proc/sys/fs/file-nr", "/proc/net/sockstat", "/proc/self/mounts",
	} {
		if err := section(&b, path); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	for _, command := range [][]string{{"df", "-h"}, {"lscpu"}, {"systemctl", "--no-pager", "--lines", "0", "status", "gotgtd.service", "gotgtd.socket"}} {
		text, err := output(ctx, command[0], command[1:]...)
		fmt.Fprintf(&b, "== %s\n%s", strings.Join(command, " "), text)
		if err != nil { // the exit status of systemctl tells how the units are
			fmt.Fprintf(&b, "[%v]\n", err)
		}
	}
	return b.String(), errors.Join(errs...)
}

// section adds a file of the kernel's.
func section(b *strings.Builder, path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && strings.Contains(path, "/task/") {
		return nil // a thread that has ended
	}
	fmt.Fprintf(b, "== %s\n%s\n", path, bytes.TrimRight(bytes.ReplaceAll(text, []byte{0}, []byte{' '}), "\n"))
	return err
}

// output is what a program prints.
func output(ctx context.Context, name string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Env = append(slices.Clone(os.Environ()), "LC_ALL=C.UTF-8")
	c.WaitDelay = time.Second
	text, err := c.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return string(text), err
}
