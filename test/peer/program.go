// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// Program is a program of this project that the tests of a package build and run. It is built when
// the first test asks for it, so that a test that needs none does not wait.
type Program struct {
	name  string
	build func(ctx context.Context, path string) error
	dir   string // set by Main

	once sync.Once
	path string
	err  error
}

// NewProgram returns a program that build writes to a path.
func NewProgram(name string, build func(ctx context.Context, path string) error) *Program {
	return &Program{name: name, build: build}
}

// GoProgram returns a program that `go build` makes from a folder, with more flags.
func GoProgram(name, source string, flags ...string) *Program {
	return NewProgram(name, func(ctx context.Context, path string) error {
		return GoBuild(ctx, path, source, flags...)
	})
}

// GoBuild builds the program in a folder, with more flags.
func GoBuild(ctx context.Context, path, source string, flags ...string) error {
	args := append([]string{"build", "-o", path}, flags...)
	_, err := Run(ctx, "go", append(args, source)...)
	return err
}

// Path returns where the program is, and builds it if no test has asked for it before. The test
// fails if that can't be done.
func (p *Program) Path(t testing.TB) string {
	t.Helper()
	p.once.Do(func() {
		if p.dir == "" {
			p.err = errors.New("peer.Main was not told of " + p.name)
			return
		}
		// A folder for each, in which a build may leave what it needs.
		dir := filepath.Join(p.dir, p.name+".d")
		p.path = filepath.Join(dir, p.name)
		if p.err = os.Mkdir(dir, 0o700); p.err == nil {
			// Other tests need it as well: it does not end with the one that asks first.
			p.err = p.build(context.Background(), p.path)
		}
	})
	if p.err != nil {
		t.Fatal(p.err)
	}
	return p.path
}

// NeedRoot skips a test that makes namespaces, mounts and the like, unless it runs as root. The
// project's own runs do.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("this test has to run as root")
	}
}

// Need skips a test if a program that others wrote is not installed. The project's own runs install
// them all, and take a skipped test for one that has failed.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed: test/scripts/deps.sh test, as root, installs it", name)
		}
	}
}
