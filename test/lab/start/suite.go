// SPDX-License-Identifier: Apache-2.0

// Package start is the lab's suite of docs/getting-started.md: what a new administrator types, on
// a machine that has never seen gotgtd. One machine is both the one that serves and the one that
// uses the disk.
package start

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/test/lab"
)

// Suite is the suite.
var Suite = lab.Suite{Name: "start", Title: "the commands of " + document + ", as they are", Run: run}

// scene is the machine and the time that the document has taken.
type scene struct {
	*lab.Lab
	host  *lab.Machine
	shell shell
	took  time.Duration
}

func run(ctx context.Context, l *lab.Lab) error {
	text, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	list, err := blocks(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("can't read %s: %w", document, err)
	}
	s := &scene{Lab: l, host: l.Machine(lab.MachineOptions{Number: 1})}
	s.shell.mine = map[string]string{"STORAGE": s.host.Address(), "SECRET": "$(cat /etc/gotgtd/host-a.secret)"}
	if err := l.Step(ctx, "make packages from a tarball", s.putPackage); err != nil {
		return err
	}
	for _, b := range list {
		if err := l.Step(ctx, b.heading, func(ctx context.Context) error { return s.do(ctx, b) }); err != nil {
			return err
		}
	}
	l.Figure("from the package to an alert, all commands", "%.0f s", s.took.Seconds())
	return l.Step(ctx, "what is there in the end", s.inTheEnd)
}

// putPackage boots the machine with the package in root's folder.
func (s *scene) putPackage(ctx context.Context) error {
	packages, err := s.Packages(ctx, "lab-1")
	if err != nil {
		return err
	}
	if err := s.host.Boot(ctx); err != nil {
		return err
	}
	return s.host.Put(ctx, packages[0], "/root/gotgtd_1_amd64.deb")
}

// do runs a block.
func (s *scene) do(ctx context.Context, b block) error {
	script := s.shell.script(b.text)
	begin := time.Now()
	_, err := s.host.Run(ctx, script)
	s.took += time.Since(begin)
	return err
}

// inTheEnd wants the disk mounted through all of it, by CHAP, and the configuration mended.
func (s *scene) inTheEnd(ctx context.Context) error {
	for command, want := range map[string]string{
		"findmnt -n -o FSTYPE,SOURCE /mnt": "ext4 /dev/sd",
		"gotgtd session list --json":       `"account": "host-a"`,
		"gotgtd status --ready":            "targets 1, logical units 1 (0 not ready), sessions 1",
		"gotgtd plan":                      "nothing changes",
	} {
		out, err := s.host.Run(ctx, command)
		if err != nil {
			return err
		}
		if text := strings.Join(strings.Fields(out), " "); !strings.Contains(text, want) {
			return fmt.Errorf("%s says\n%s\nwithout %q", command, out, want)
		}
	}
	return nil
}
