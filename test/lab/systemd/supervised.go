// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/gotgtd/gotgtd/supervisor/service"
	"github.com/gotgtd/gotgtd/test/lab"
	"github.com/gotgtd/gotgtd/test/peer"
)

// supervised is what gotgtd.service goes through.
func (s *scene) supervised(ctx context.Context) error {
	s.unit = "gotgtd.service"
	if err := s.begin(ctx, "I/O, gotgtd.service"); err != nil {
		return err
	}
	s.reloads(ctx, s.reload)
	for _, b := range breakages {
		s.Step(ctx, "a reload that fails: "+b.what, func(ctx context.Context) error { return s.failingReload(ctx, b) })
	}
	s.Step(ctx, "apt install of the next version", s.change(1))
	s.Step(ctx, "apt install of the version before", s.change(0))
	s.Step(ctx, "systemctl restart", func(ctx context.Context) error {
		return s.shaken(ctx, "restart", func(ctx context.Context) error {
			_, err := s.host.Run(ctx, "systemctl restart gotgtd")
			return err
		})
	})
	s.Step(ctx, "gotgtd is killed", func(ctx context.Context) error {
		return s.shaken(ctx, "kill of gotgtd", func(ctx context.Context) error { return s.signalGeneration(ctx, "KILL", "killed by signal") })
	})
	s.Step(ctx, "upgraded is killed", func(ctx context.Context) error {
		return s.shaken(ctx, "kill of upgraded", func(ctx context.Context) error { return s.signalMain(ctx, "KILL") })
	})
	s.Step(ctx, "gotgtd hangs", func(ctx context.Context) error {
		return s.shaken(ctx, "watchdog", func(ctx context.Context) error { return s.signalGeneration(ctx, "STOP", "watchdog") })
	})
	if !s.Short {
		s.Step(ctx, "upgraded hangs", func(ctx context.Context) error {
			return s.shaken(ctx, "systemd's watchdog", func(ctx context.Context) error { return s.signalMain(ctx, "STOP") })
		})
	}
	return s.end(ctx)
}

// reloads does a number of reloads under I/O.
func (s *scene) reloads(ctx context.Context, reload func(context.Context) error) {
	rounds := 10
	if s.Short {
		rounds = 3
	}
	s.Step(ctx, fmt.Sprintf("%d reloads of %s", rounds, s.unit), func(ctx context.Context) error {
		worst, err := s.calm(ctx, func(ctx context.Context) error {
			for range rounds {
				s.Mark("reload")
				if err := reload(ctx); err != nil {
					return err
				}
				if err := s.io.Progress(ctx); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil {
			s.Figure("worst pause of a reload, "+s.unit, "%.1f ms", worst.Seconds()*1000)
		}
		return err
	})
}

// status is what upgraded says of itself and the service.
func (s *scene) status(ctx context.Context) (service.Status, error) {
	out, err := s.host.Run(ctx, "upgraded status --json")
	if err != nil {
		return service.Status{}, err
	}
	var result service.Result
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		return service.Status{}, fmt.Errorf("can't read upgraded's status: %w", err)
	}
	if result.Status.Main == nil {
		return result.Status, errors.New("upgraded has no generation that serves")
	}
	return result.Status, nil
}

// property is one of the unit's, as systemd has it.
func (s *scene) property(ctx context.Context, name string) (string, error) {
	out, err := s.host.Run(ctx, "systemctl show --value -p "+name+" "+s.unit)
	return strings.TrimSpace(out), err
}

func (s *scene) mainPID(ctx context.Context) (int, error) {
	text, err := s.property(ctx, "MainPID")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// reload has the next generation serve when systemctl returns.
func (s *scene) reload(ctx context.Context) error {
	before, err := s.status(ctx)
	if err != nil {
		return err
	}
	if _, err := s.host.Run(ctx, "systemctl reload gotgtd"); err != nil {
		return err
	}
	after, err := s.status(ctx)
	if err != nil {
		return err
	}
	if after.Main.Number != before.Main.Number+1 || after.Main.PID == before.Main.PID || after.Supervisor.PID != before.Supervisor.PID {
		return fmt.Errorf("after the reload %+v serves under %+v, before it %+v did under %+v", after.Main, after.Supervisor, before.Main, before.Supervisor)
	}
	return nil
}

// breakage is a reason for a reload to fail.
type breakage struct {
	what   string
	path   string // the file that is replaced
	text   string
	reason string // what systemctl status and the journal have to say
}

var breakages = []breakage{
	{"the program ends at once", "/usr/bin/gotgtd", "#!/bin/sh\necho no use\nexit 9\n", "exit status 9"},
	{"no program for this machine", "/usr/bin/gotgtd", "\x7fELF of another world", "exec format error"},
	{"wrong configuration", "/etc/gotgtd/gotgtd.yaml", "targets:\n  - nmae: x\n", "gotgtd.yaml:2:"},
}

// failingReload breaks something, and has systemctl say so and nothing else happen.
func (s *scene) failingReload(ctx context.Context, b breakage) error {
	before, err := s.mainPID(ctx)
	if err != nil {
		return err
	}
	_, err = s.calm(ctx, func(ctx context.Context) error {
		if _, err := s.host.Run(ctx, fmt.Sprintf("ln %[1]s %[1]s.good", b.path)); err != nil {
			return err
		}
		if err := s.host.PutText(ctx, b.text, b.path, 0o755); err != nil {
			return err
		}
		s.Mark("failing reload")
		_, reloadErr := s.host.Run(ctx, "systemctl reload "+s.unit)
		_, err := s.host.Run(ctx, fmt.Sprintf("mv -f %[1]s.good %[1]s", b.path))
		var exit *lab.ExitError
		if !errors.As(reloadErr, &exit) {
			return errors.Join(fmt.Errorf("the reload has not failed as it should: %v", reloadErr), err)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, command := range []string{"systemctl status --no-pager -l -n 0 " + s.unit, "journalctl -q --no-pager -o cat -u " + s.unit} {
		out, err := s.host.Run(ctx, command)
		if err != nil {
			return err
		}
		if !strings.Contains(out, b.reason) {
			return fmt.Errorf("%q does not say %q:\n%s", command, b.reason, out)
		}
	}
	if after, err := s.mainPID(ctx); err != nil || after != before {
		return fmt.Errorf("the main process was %d and is %d: %v", before, after, err)
	}
	return nil
}

// change installs the package of another version, which replaces both programs in the
// processes that run.
func (s *scene) change(version int) func(context.Context) error {
	return func(ctx context.Context) error {
		before, err := s.status(ctx)
		if err != nil {
			return err
		}
		worst, err := s.calm(ctx, func(ctx context.Context) error {
			s.Mark("apt install " + versions[version])
			return s.host.Install(ctx, s.packages[version])
		})
		if err != nil {
			return err
		}
		s.Figure("worst pause of apt install "+versions[version], "%.1f ms", worst.Seconds()*1000)
		after, err := s.status(ctx)
		if err != nil {
			return err
		}
		pid, err := s.mainPID(ctx)
		if err != nil {
			return err
		}
		if after.Supervisor.PID != before.Supervisor.PID || after.Supervisor.PID != pid || after.Supervisor.Version != versions[version] {
			return fmt.Errorf("upgraded was %+v and is %+v; systemd's main process is %d", before.Supervisor, after.Supervisor, pid)
		}
		out, err := s.host.Run(ctx, "gotgtd show --json")
		if err == nil && !strings.Contains(out, `"`+versions[version]+`"`) {
			err = fmt.Errorf("gotgtd is not version %s:\n%s", versions[version], out)
		}
		return err
	}
}

// signalGeneration sends a signal to the process that serves, of which it must end, and waits for the
// next one.
func (s *scene) signalGeneration(ctx context.Context, signal, reason string) error {
	before, err := s.status(ctx)
	if err != nil {
		return err
	}
	if _, err := s.host.Run(ctx, fmt.Sprintf("kill -%s %d", signal, before.Main.PID)); err != nil {
		return err
	}
	var after service.Status
	err = peer.Until(ctx, func() error {
		if after, err = s.status(ctx); err != nil {
			return err
		}
		if after.State != service.Serving || after.Main.PID == before.Main.PID {
			return fmt.Errorf("upgraded is %s with %+v", after.State, after.Main)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case after.Restarts != before.Restarts+1 || after.Supervisor.PID != before.Supervisor.PID:
		return fmt.Errorf("%d restarts under %+v, after %d under %+v", after.Restarts, after.Supervisor, before.Restarts, before.Supervisor)
	case after.Failure == nil || !strings.Contains(after.Failure.Reason, reason):
		return fmt.Errorf("the failure is %+v, not %q", after.Failure, reason)
	}
	return nil
}

// signalMain sends a signal to the unit's main process, of which it must end, and waits
// until systemd has started the service again.
func (s *scene) signalMain(ctx context.Context, signal string) error {
	before, err := s.mainPID(ctx)
	if err != nil {
		return err
	}
	restarts, err := s.property(ctx, "NRestarts")
	if err != nil {
		return err
	}
	if _, err := s.host.Run(ctx, fmt.Sprintf("kill -%s %d", signal, before)); err != nil {
		return err
	}
	return peer.Until(ctx, func() error {
		pid, err := s.mainPID(ctx)
		if err != nil {
			return err
		}
		state, err := s.property(ctx, "ActiveState")
		if err != nil {
			return err
		}
		now, err := s.property(ctx, "NRestarts")
		if err != nil {
			return err
		}
		if pid == 0 || pid == before || state != "active" || now == restarts {
			return fmt.Errorf("%s is %s with process %d after %s restarts", s.unit, state, pid, now)
		}
		return nil
	})
}
