// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/gotgtd/gotgtd/test/peer"
)

// Trees unpacks the sources as a tarball has them and has `make install` make one tree
// for each of the versions.
func (l *Lab) Trees(ctx context.Context, versions ...string) (trees []string, err error) {
	source := filepath.Join(l.Dir, "source")
	if err := os.Mkdir(source, 0o755); err != nil {
		return nil, err
	}
	// Files that are not committed yet belong to what is tested.
	pack := fmt.Sprintf("git ls-files -z -co --exclude-standard | tar -c --null --ignore-failed-read -T - -f %[1]s.tar && tar -C %[1]s -xf %[1]s.tar", source)
	if _, err := peer.Run(ctx, "sh", "-c", pack); err != nil {
		return nil, err
	}
	for _, version := range versions {
		tree := filepath.Join(l.Dir, version)
		_, err := peer.Run(ctx, "env", "CGO_ENABLED=0", "make", "-C", source, "install", "VERSION="+version, "DESTDIR="+tree)
		if err != nil {
			return nil, err
		}
		trees = append(trees, tree)
	}
	return trees, nil
}

// Install brings a tree into the machine and does there what a package's scripts do.
func (m *Machine) Install(ctx context.Context, tree string) error {
	archive := tree + ".tar"
	if _, err := peer.Run(ctx, "tar", "-C", tree, "--owner=0", "--group=0", "-cf", archive, "."); err != nil {
		return err
	}
	if err := m.Put(ctx, archive, "/root/gotgtd.tar"); err != nil {
		return err
	}
	_, err := m.Run(ctx, strings.Join([]string{
		"tar -C / --no-overwrite-dir -xf /root/gotgtd.tar",
		"rm /root/gotgtd.tar",
		"systemd-sysusers gotgtd.conf",
		"systemd-tmpfiles --create gotgtd.conf",
		"systemctl daemon-reload",
	}, " && "))
	return err
}
