// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/gotgtd/gotgtd/test/peer"
)

// versions are those of the programs in the scene's trees.
var versions = []string{"lab-1", "lab-2"}

// makeTrees unpacks the sources as a tarball has them and has `make install` make one
// tree for each version.
func (s *scene) makeTrees(ctx context.Context) error {
	source := filepath.Join(s.Dir, "source")
	if err := os.Mkdir(source, 0o755); err != nil {
		return err
	}
	// Files that are not committed yet belong to what is tested.
	pack := fmt.Sprintf("git ls-files -z -co --exclude-standard | tar -c --null --ignore-failed-read -T - -f %[1]s.tar && tar -C %[1]s -xf %[1]s.tar", source)
	if _, err := peer.Run(ctx, "sh", "-c", pack); err != nil {
		return err
	}
	for _, version := range versions {
		tree := filepath.Join(s.Dir, version)
		_, err := peer.Run(ctx, "env", "CGO_ENABLED=0", "make", "-C", source, "install", "VERSION="+version, "DESTDIR="+tree)
		if err != nil {
			return err
		}
		s.trees = append(s.trees, tree)
	}
	return nil
}

// install brings the first tree into the machine and does there what a package's scripts do.
func (s *scene) install(ctx context.Context) error {
	archive := s.trees[0] + ".tar"
	if _, err := peer.Run(ctx, "tar", "-C", s.trees[0], "--owner=0", "--group=0", "-cf", archive, "."); err != nil {
		return err
	}
	if err := s.host.Put(ctx, archive, "/root/gotgtd.tar"); err != nil {
		return err
	}
	_, err := s.host.Run(ctx, strings.Join([]string{
		"tar -C / --no-overwrite-dir -xf /root/gotgtd.tar",
		"rm /root/gotgtd.tar",
		"systemd-sysusers gotgtd.conf",
		"systemd-tmpfiles --create gotgtd.conf",
		"systemctl daemon-reload",
		"systemctl enable gotgtd.socket",
		"gotgtd check --config /etc/gotgtd/gotgtd.yaml",
	}, " && "))
	return err
}

// socketAlone is how it is after boot: the socket is there, and the service is not started
// before somebody connects.
func (s *scene) socketAlone(ctx context.Context) error {
	for unit, want := range map[string]string{"gotgtd.socket": "active", "gotgtd.service": "inactive"} {
		out, err := s.host.Run(ctx, "systemctl show --value -p ActiveState "+unit)
		if err != nil {
			return err
		}
		if got := strings.TrimSpace(out); got != want {
			return fmt.Errorf("%s is %s, not %s", unit, got, want)
		}
	}
	return nil
}

// replace puts another version's programs in the place of those that are installed, as a
// package manager does.
func (s *scene) replace(ctx context.Context, version int, programs ...string) error {
	for _, p := range programs {
		path := "/usr/bin/" + p
		if err := s.host.Put(ctx, s.trees[version]+path, path); err != nil {
			return err
		}
	}
	return nil
}
