// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"context"
	"fmt"
	"strings"
)

// versions are those of the scene's packages.
var versions = []string{"lab-1", "lab-2"}

// makePackages makes a package of each version.
func (s *scene) makePackages(ctx context.Context) (err error) {
	s.packages, err = s.Packages(ctx, versions...)
	return err
}

// install installs the first version, with the socket enabled.
func (s *scene) install(ctx context.Context) error {
	if err := s.host.Install(ctx, s.packages[0]); err != nil {
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

// purge removes the package and what it has made. The disk stays, and the user whose it is.
func (s *scene) purge(ctx context.Context) error {
	out, err := s.host.Run(ctx, `set -eu
DEBIAN_FRONTEND=noninteractive apt-get purge -y gotgtd
find / /run -xdev \( -name '*gotgtd*' -o -name '*upgraded*' \) ! -path '/proc/*' ! -path '/sys/*' ! -path '/var/lib/dpkg/*' ! -path '/var/log/*'
ls /var/lib/gotgtd
pgrep -a 'gotgtd|upgraded' || :
systemctl list-unit-files --no-legend 'gotgtd*' || :`)
	if err != nil {
		return err
	}
	_, left, _ := strings.Cut(out, "Purging configuration files for gotgtd")
	_, left, _ = strings.Cut(left, "\n")
	if want := "/var/lib/gotgtd\ndisk.img"; strings.TrimSpace(left) != want {
		return fmt.Errorf("after the purge there is:\n%s\nnot:\n%s", left, want)
	}
	return nil
}
