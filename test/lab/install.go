// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gotgtd/gotgtd/test/peer"
)

// Packages unpacks the sources as a tarball has them and has `make packages` make a Debian
// package of each of the versions.
func (l *Lab) Packages(ctx context.Context, versions ...string) (packages []string, err error) {
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
		if _, err := peer.Run(ctx, "make", "-C", source, "packages", "VERSION="+version); err != nil {
			return nil, err
		}
		made, err := filepath.Glob(filepath.Join(source, "build", "packages", "*.deb"))
		if err != nil || len(made) != 1 {
			return nil, fmt.Errorf("make packages has made %d Debian packages: %v, %w", len(made), made, err)
		}
		file := filepath.Join(l.Dir, version+".deb")
		if err := os.Rename(made[0], file); err != nil {
			return nil, err
		}
		packages = append(packages, file)
	}
	return packages, nil
}

// Install has apt install a package in the machine, or put it in the place of another version.
func (m *Machine) Install(ctx context.Context, file string) error {
	to := "/root/" + filepath.Base(file)
	if err := m.Put(ctx, file, to); err != nil {
		return err
	}
	_, err := m.Run(ctx, "DEBIAN_FRONTEND=noninteractive apt-get install -y --allow-downgrades --no-install-recommends "+to+" && rm "+to)
	return err
}
