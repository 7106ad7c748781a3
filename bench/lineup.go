// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gotgtd/gotgtd/test/peer"
)

// running is a target that serves.
type running struct {
	name    string
	version string
	unit    unit
	pid     int    // whose CPU time counts; 0 when it can't be known
	disk    string // its backing file; empty when it can't be known
	stop    func()
}

// answers waits until the logical unit of a target, which is process p, answers.
func (r *running) answers(ctx context.Context, p *peer.Process) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err := peer.Until(ctx, func() error {
		_, err := peer.Run(ctx, "iscsi-inq", r.unit.String())
		select {
		case <-p.Done():
			cancel()
		default:
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, p.Log())
	}
	return nil
}

// lineup is every target in the run, gotgtd first.
type lineup struct {
	targets []running
	gotgtd  *peer.Gotgtd
	missing []string // what could not be had, and why
}

func (l *lineup) stop() {
	for _, t := range l.targets {
		t.stop()
	}
}

// startAll builds and starts gotgtd and its peers, each with a file of its own
// What can't be had is noted and left out; gotgtd must be there.
func startAll(ctx context.Context, dir string, o *options) (*lineup, error) {
	l, size := new(lineup), o.plan.diskSize
	program, version, err := buildGotgtd(ctx, dir)
	if err != nil {
		return l, err
	}
	own, err := startGotgtd(ctx, program, filepath.Join(dir, "gotgtd.d"), size)
	if err != nil {
		return l, err
	}
	own.version, l.gotgtd = version, own.gotgtd
	l.targets = append(l.targets, own.running)
	for _, p := range []struct {
		name  string
		start func(ctx context.Context, dir, disk string) (running, error)
	}{{"tgt", startTgt}, {"istgt", startIstgt}, {"gotgt", startGotgt}} {
		if slices.Contains(o.without, p.name) {
			l.missing = append(l.missing, p.name+": left out by -without")
			continue
		}
		disk, err := newDisk(filepath.Join(dir, p.name+".d"), size)
		if err != nil {
			return l, err
		}
		t, err := p.start(ctx, filepath.Dir(disk), disk)
		if err != nil {
			l.missing = append(l.missing, fmt.Sprintf("%s: %v", p.name, err))
			continue
		}
		if err := writeBack(disk); err != nil {
			return l, err
		}
		t.name, t.disk = p.name, disk
		l.targets = append(l.targets, t)
	}
	l.missing = append(l.missing, o.peers.findProcesses()...)
	l.targets = append(l.targets, o.peers...)
	if err := writeBack(own.disk); err != nil {
		return l, err
	}
	l.keepWarm()
	say(os.Stdout, l.missing)
	return l, nil
}

// keepWarm keeps the targets' files in the page cache until the targets are stopped.
func (l *lineup) keepWarm() {
	for i := range l.targets {
		t := &l.targets[i]
		if t.disk == "" {
			continue
		}
		release, err := keepWarm(t.disk)
		if err != nil {
			l.missing = append(l.missing, fmt.Sprintf("the disk of %s may leave the page cache: %v", t.name, err))
			continue
		}
		stop := t.stop
		t.stop = func() { stop(); release() }
	}
}

// say prints a line about what could not be run.
func say(w io.Writer, missing []string) {
	for _, m := range missing {
		fmt.Fprintln(w, "could not be run:", m)
	}
}
