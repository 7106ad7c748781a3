// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/test/peer"
)

// patience is how long a test waits for what comes at once on an idle machine.
const patience = 2 * time.Minute

// repository is what packaging/image.sh calls the images.
const repository = "localhost/gotgtd"

// podman is Debian's podman with a storage of its own, which goes with the test.
type podman struct {
	t       *testing.T
	globals []string
}

func newPodman(t *testing.T) *podman {
	t.Helper()
	peer.NeedRoot(t)
	// crun, podman's first choice, refuses a machine with both hierarchies of control groups.
	peer.Need(t, "podman", "runc")
	dir := t.TempDir()
	p := &podman{t: t, globals: []string{
		"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--tmpdir", filepath.Join(dir, "tmp"),
		"--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", "runc", "--events-backend", "none",
	}}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if _, err := p.try(ctx, "rm", "--all", "--force", "--volumes"); err != nil {
			t.Error(err)
		}
	})
	return p
}

// try runs podman and returns what it prints.
func (p *podman) try(ctx context.Context, args ...string) (string, error) {
	return peer.Run(ctx, "podman", append(append([]string{}, p.globals...), args...)...)
}

// run is try where a failure ends the test.
func (p *podman) run(args ...string) string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	out, err := p.try(ctx, args...)
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// build makes the image of a version and loads it.
func (p *podman) build(version string) {
	p.t.Helper()
	dir := p.t.TempDir()
	out, err := peer.Run(p.t.Context(), "../../packaging/image.sh", version, dir)
	if err != nil {
		p.t.Fatal(err)
	}
	p.run("load", "--input", strings.TrimSpace(out))
}

// start runs a version's image as docs/containers.md says, but for the port, and waits until its
// health check passes.
func (p *podman) start(name, version, portal, config, state string) {
	p.t.Helper()
	args := []string{"run", "--detach", "--name", name, "--network", "host", "--cap-drop", "all", "--security-opt", "no-new-privileges",
		"--health-cmd", "CMD /usr/bin/gotgtd status --ready", "--health-interval", "disable",
		"--volume", config + ":/etc/gotgtd:ro", "--volume", state + ":/var/lib/gotgtd"}
	args = append(args, limits(p.t)...)
	p.run(append(args, repository+":"+version,
		"--listen", "iscsi="+portal, "--", "/usr/bin/gotgtd", "serve", "--config", "/etc/gotgtd/gotgtd.yaml")...)
	p.until(func(ctx context.Context) error {
		_, err := p.try(ctx, "healthcheck", "run", name)
		if err != nil {
			logs, _ := p.try(ctx, "logs", name)
			err = fmt.Errorf("%w\n%s", err, logs)
		}
		return err
	})
}

// limits are this process's own: without CAP_SYS_RESOURCE podman's higher ones can't be set.
func limits(t *testing.T) []string {
	t.Helper()
	var args []string
	for name, resource := range map[string]int{"nofile": unix.RLIMIT_NOFILE, "nproc": unix.RLIMIT_NPROC} {
		var l unix.Rlimit
		if err := unix.Getrlimit(resource, &l); err != nil {
			t.Fatal(err)
		}
		// 4096 is enough for a test, and less than what anybody may set.
		n := strconv.FormatUint(min(l.Max, 4096), 10)
		args = append(args, "--ulimit", name+"="+n+":"+n)
	}
	return args
}

// until waits for f to succeed.
func (p *podman) until(f func(ctx context.Context) error) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	if err := peer.Until(ctx, func() error { return f(ctx) }); err != nil {
		p.t.Fatal(err)
	}
}

// inspect is a field of what podman knows of a container.
func (p *podman) inspect(name, field string) string {
	p.t.Helper()
	return p.run("inspect", "--type", "container", "--format", "{{."+field+"}}", name)
}

// says waits until the daemon in a container says that it is a version and generation.
func (p *podman) says(name, version string, generation int) {
	p.t.Helper()
	want := fmt.Sprintf("serving: version %s, generation %d, ", version, generation)
	p.until(func(ctx context.Context) error {
		out, err := p.try(ctx, "exec", name, "gotgtd", "status")
		if err == nil && !strings.HasPrefix(out, want) {
			err = fmt.Errorf("the daemon says %q, not %q", out, want)
		}
		return err
	})
}
