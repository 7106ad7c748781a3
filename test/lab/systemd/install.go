// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"context"
	"fmt"
	"strings"
)

// versions are those of the programs in the scene's trees.
var versions = []string{"lab-1", "lab-2"}

// makeTrees makes an installation of each version.
func (s *scene) makeTrees(ctx context.Context) (err error) {
	s.trees, err = s.Trees(ctx, versions...)
	return err
}

// install brings the first tree into the machine, with the socket enabled.
func (s *scene) install(ctx context.Context) error {
	if err := s.host.Install(ctx, s.trees[0]); err != nil {
		return err
	}
	_, err := s.host.Run(ctx, "systemctl enable gotgtd.socket && gotgtd check --config /etc/gotgtd/gotgtd.yaml")
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
