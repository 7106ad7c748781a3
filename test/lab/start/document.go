// SPDX-License-Identifier: Apache-2.0

package start

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// document is what is run, from the module's root.
const document = "docs/getting-started.md"

// block is the commands of one fence of a document, below the heading that it stands under.
type block struct {
	heading string
	text    string
}

// blocks reads the fences marked sh. Others show something that nobody types.
func blocks(r io.Reader) (list []block, err error) {
	var (
		heading string
		inside  bool
		text    strings.Builder
	)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		switch line := lines.Text(); {
		case inside && line == "```":
			list = append(list, block{heading, text.String()})
			inside = false
			text.Reset()
		case inside:
			text.WriteString(line + "\n")
		case line == "```sh":
			inside = true
		case strings.HasPrefix(line, "## "):
			heading = strings.TrimPrefix(line, "## ")
		}
	}
	if inside {
		return nil, fmt.Errorf("the last block, of %q, has no end", heading)
	}
	return list, lines.Err()
}

// assignment is a line that only sets a variable of the shell.
var assignment = regexp.MustCompile(`^([A-Z]+)=\S*$`)

// A shell runs one block after the other as people do in one terminal: variables stay. Those in
// mine are set to what is so here, wherever the document sets them to an example.
type shell struct {
	mine map[string]string
	set  []string // assignments so far
}

// script is a block as it is run: it ends where a command fails.
func (s *shell) script(text string) string {
	var b strings.Builder
	b.WriteString("set -e\n" + strings.Join(s.set, ""))
	for line := range strings.Lines(text) {
		if m := assignment.FindStringSubmatch(strings.TrimSuffix(line, "\n")); m != nil {
			if value, found := s.mine[m[1]]; found {
				line = m[1] + "=" + value + "\n"
			}
			s.set = append(s.set, line)
		}
		b.WriteString(line)
	}
	return b.String()
}
