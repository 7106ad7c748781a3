// SPDX-License-Identifier: Apache-2.0

// Package migrate is the lab's suite of docs/migrating.md: Debian's tgt serves, gotgtd takes
// its place with the same targets.conf while an initiator has a file system mounted, and the
// initiator's disks keep their identities, then and whatever is added to the file.
package migrate

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/gotgtd/gotgtd/test/lab"
)

// Suite is the suite.
var Suite = lab.Suite{Name: "migrate", Title: "from tgt to gotgtd, as docs/migrating.md has it", Run: run}

// scene is what the steps share.
type scene struct {
	*lab.Lab
	server, initiator *lab.Machine
	portal            string
	packaged          string     // the package of gotgtd
	root              string     // the WWID of mail's LUN 2, whose file system is mounted
	before            identities // under tgt
}

type step struct {
	name string
	do   func(context.Context) error
}

func run(ctx context.Context, l *lab.Lab) error {
	s := &scene{Lab: l, server: l.Machine(lab.MachineOptions{Number: 1}), initiator: l.Machine(lab.MachineOptions{Number: 2})}
	s.portal = s.server.Address() + ":3260"
	steps := []step{
		{"make packages from a tarball", s.makePackage},
		{"boot", s.boot},
		{"gotgtd is installed beside tgt", func(ctx context.Context) error { return s.server.Install(ctx, s.packaged) }},
		{"tgt serves", s.tgtServes},
		{"login, multipath, a file system is mounted", s.login},
		{"1: tgt runs with the numbers that its file gives", s.sameNumbers},
		{"2: gotgtd check", s.onServer(checkFile)},
		{"3: the service can read the file and reach the disks", s.prepareService},
		{"4: the identities are noted", s.note},
		{"5: change over, with the file system in use", s.changeOver},
		{"6: the identities are the same", s.kept},
		{"login anew: they are the same", s.loginAnew},
		{"a target and a disk that sort first are added, reload: the same", s.add},
		{"restart of gotgtd: the same", s.restart},
		{"control: without numbers.yaml, a restart gives other identities", s.withoutLedger},
		{"with numbers.yaml, and login anew: the same", s.withLedger},
	}
	if !l.Short {
		steps = append(steps,
			step{"control: back to tgt, which numbers anew: other identities", s.goBack(false)},
			step{"back to tgt, with the numbers in its file: the same", s.goBack(true)})
	}
	for _, step := range append(steps, step{"the file system is whole", s.fsck}) {
		// With disks that are others than before, the next steps can be tried all the same.
		if err := l.Step(ctx, step.name, step.do); err != nil && !errors.Is(err, errChanged) {
			return err
		}
	}
	return nil
}

func (s *scene) makePackage(ctx context.Context) error {
	packages, err := s.Packages(ctx, "lab-1")
	if err == nil {
		s.packaged = packages[0]
	}
	return err
}

func (s *scene) boot(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.server.Boot(ctx) })
	group.Go(func() error { return s.initiator.Boot(ctx) })
	return group.Wait()
}

// onServer runs what the document says.
func (s *scene) onServer(script string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := s.server.Run(ctx, "set -eu\n"+script)
		return err
	}
}

func (s *scene) tgtServes(ctx context.Context) error {
	if err := s.server.PutText(ctx, configuration{dir: "/etc/tgt"}.String(), tgtConf, 0o600); err != nil {
		return err
	}
	return s.onServer(fmt.Sprintf(`mkdir /srv/disks; cd /srv/disks
for disk in %s; do truncate -s 48M $disk.img; chmod 600 $disk.img; mke2fs -q -t ext4 -L $disk $disk.img; done
systemctl enable --now tgt`, strings.Join(disks, " ")))(ctx)
}

// sameNumbers compares the running numbers with those of a start with the file.
func (s *scene) sameNumbers(ctx context.Context) error {
	runs, err := s.server.Run(ctx, runningNumbers)
	if err != nil {
		return err
	}
	file, err := s.server.Run(ctx, fileNumbers)
	if err != nil {
		return err
	}
	running, given := numbersIn(runs, shownNumbers), numbersIn(file, printedNumbers)
	if len(running) != 6 || !slices.Equal(running, given) { // two targets with two disks each
		return fmt.Errorf("tgt runs with\n%s\nand its file gives\n%s", strings.Join(running, "\n"), strings.Join(given, "\n"))
	}
	return nil
}

// prepareService gives the service the file, tgt serving still.
func (s *scene) prepareService(ctx context.Context) error {
	if err := s.onServer(copyFile)(ctx); err != nil {
		return err
	}
	if err := s.onServer("mkdir -p " + filepath.Dir(dropInFile))(ctx); err != nil {
		return err
	}
	if err := s.server.PutText(ctx, dropIn, dropInFile, 0o644); err != nil {
		return err
	}
	return s.onServer("systemctl daemon-reload\n" + checkAsService)(ctx)
}

// changeOver puts gotgtd into tgt's place. The initiator waits, and goes on.
func (s *scene) changeOver(ctx context.Context) error {
	return s.unharmed(ctx, "change over", s.onServer(changeOver))
}

// loginAnew compares after a login to which nothing is left of what the initiator knew.
func (s *scene) loginAnew(ctx context.Context) error {
	return s.mustStay(ctx, func(context.Context) error { return nil }, s.kept)
}

// add has gotgtd serve another target and another disk, both before the others in order.
func (s *scene) add(ctx context.Context) error {
	if err := s.configure(ctx, "/etc/gotgtd", false); err != nil {
		return err
	}
	if err := s.onServer("systemctl reload gotgtd")(ctx); err != nil {
		return err
	}
	if _, err := s.initiator.Run(ctx, "iscsiadm -m session -R"); err != nil {
		return err
	}
	if err := s.loginTo(ctx, archiveTarget); err != nil {
		return err
	}
	return errors.Join(s.added(ctx), s.writes(ctx))
}

// configure writes the configuration with what is added. Its owner stays.
func (s *scene) configure(ctx context.Context, dir string, numbered bool) error {
	for file, text := range map[string]string{
		"targets.conf": configuration{dir: dir, cold: true, numbered: numbered}.String(),
		archiveConf:    archive(numbered),
	} {
		file = filepath.Join(dir, file)
		if err := s.server.PutText(ctx, text, file, 0o600); err != nil {
			return err
		}
		if err := s.onServer(fmt.Sprintf("chown --reference=%s %s", dir+"/conf.d", file))(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *scene) restart(ctx context.Context) error {
	if err := s.unharmed(ctx, "restart", s.onServer("systemctl restart gotgtd")); err != nil {
		return err
	}
	return s.added(ctx)
}

// withoutLedger is how it would be if nothing kept the numbers.
func (s *scene) withoutLedger(ctx context.Context) error {
	return s.mustChange(ctx, s.onServer(fmt.Sprintf("systemctl stop gotgtd.socket gotgtd.service; mv %[1]s %[1]s.kept; systemctl start gotgtd.socket gotgtd.service", ledgerFile)))
}

func (s *scene) withLedger(ctx context.Context) error {
	return s.mustStay(ctx, s.onServer(fmt.Sprintf("systemctl stop gotgtd.socket gotgtd.service; mv -f %[1]s.kept %[1]s; systemctl start gotgtd.socket gotgtd.service", ledgerFile)), s.added)
}

// goBack puts tgt into gotgtd's place, with what was added, and with the numbers that
// everything has or without.
func (s *scene) goBack(numbered bool) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := s.configure(ctx, "/etc/tgt", numbered); err != nil {
			return err
		}
		if !numbered {
			return s.mustChange(ctx, s.onServer(goBack))
		}
		return s.mustStay(ctx, s.onServer("systemctl restart tgt"), s.added)
	}
}
