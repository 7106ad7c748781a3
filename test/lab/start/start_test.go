// SPDX-License-Identifier: Apache-2.0

package start

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/target/config"
)

func TestBlocks(t *testing.T) {
	const text = "# D\n```\nnot this\n```\n## One\n```sh\na\n\nb\n```\n```yaml\nc: d\n```\n## Two\n```sh\ne\n```\n"
	got, err := blocks(strings.NewReader(text))
	if diff := cmp.Diff([]block{{"One", "a\n\nb\n"}, {"Two", "e\n"}}, got, cmp.AllowUnexported(block{})); diff != "" || err != nil {
		t.Errorf("%v -want +got:\n%s", err, diff)
	}
	if _, err := blocks(strings.NewReader(text + "```sh\nx\n")); err == nil || !strings.Contains(err.Error(), `"Two", has no end`) {
		t.Errorf("a block without an end: %v", err)
	}
}

func TestShellKeepsVariables(t *testing.T) {
	s := shell{mine: map[string]string{"HERE": "here"}}
	if got, want := s.script("HERE=example\nDISK=$HERE/disk\necho HERE=no x\n"), "set -e\nHERE=here\nDISK=$HERE/disk\necho HERE=no x\n"; got != want {
		t.Errorf("the first script is:\n%s", got)
	}
	if got, want := s.script("mount $DISK\n"), "set -e\nHERE=here\nDISK=$HERE/disk\nmount $DISK\n"; got != want {
		t.Errorf("the second script is:\n%s", got)
	}
}

// TestDocument reads the document without a machine: the shell can read every block, the
// lab's own values are asked for, and the configuration is one.
func TestDocument(t *testing.T) {
	f, err := os.Open("../../../" + document)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	list, err := blocks(f)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, b := range list {
		all.WriteString(b.text)
		cmd := exec.Command("sh", "-n")
		cmd.Stdin = strings.NewReader(b.text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", b.heading, err, out)
		}
	}
	for _, want := range []string{"\nSTORAGE=", "\nSECRET=", "apt-get install -y ./gotgtd_", "ALERTS{"} {
		if !strings.Contains("\n"+all.String(), want) {
			t.Errorf("no command has %q", want)
		}
	}
	files := regexp.MustCompile(`(?s)cat >(\S+) <<'END'\n(.*?\n)END\n`).FindAllStringSubmatch(all.String(), -1)
	i := slices.IndexFunc(files, func(m []string) bool { return m[1] == "/etc/gotgtd/gotgtd.yaml" })
	if i < 0 {
		t.Fatal("no command makes /etc/gotgtd/gotgtd.yaml")
	}
	// The account's secret is read with the file, which is not there.
	text := strings.Replace(files[i][2], "secret-file: host-a.secret", "secret: 0123456789abcdef01234567", 1)
	if _, err := config.Parse("gotgtd.yaml", []byte(text)); err != nil {
		t.Error(err)
	}
}
