// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/gotgtd/gotgtd/target/config"
)

// secretList are secrets that must not be in an archive. What is collected has none in it; this is for what somebody has written
// where it does not belong, such as into a path.
type secretList struct{ known []string }

// minSecret is the shortest secret that is looked for: a shorter one is in every text.
const minSecret = 4

const hidden = "[secret]"

// add has a secret looked for, in all forms that text has it in.
func (l *secretList) add(secrets ...string) {
	for _, s := range secrets {
		if len(s) < minSecret {
			continue
		}
		quoted := strconv.Quote(s)
		forms := []string{s, quoted[1 : len(quoted)-1], url.QueryEscape(s), url.PathEscape(s)}
		if text, err := json.Marshal(s); err == nil {
			forms = append(forms, string(text[1:len(text)-1]))
		}
		l.known = append(l.known, forms...)
	}
	// The longest first: one may be a part of another.
	slices.SortFunc(l.known, func(a, b string) int { return len(b) - len(a) })
	l.known = slices.Compact(l.known)
}

// addConfig adds those of a configuration.
func (l *secretList) addConfig(c *config.Config) {
	for _, p := range secretsOf(c) {
		l.add(string(p.account.Secret))
	}
	if c.Metrics.WebConfig != "" {
		l.addFile(c.Metrics.WebConfig)
	}
}

// addFile adds what looks like secrets in a file, which may not be readable as what it is.
func (l *secretList) addFile(path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		return // then nothing of it is in the archive
	}
	for _, form := range writtenSecrets {
		for _, m := range form.FindAllStringSubmatch(string(text), -1) {
			l.add(strings.Trim(m[1], `"'`), strings.TrimSpace(m[1]))
		}
	}
}

// writtenSecrets are how secrets stand in configurations of all formats, and in the web configuration of exporters.
var writtenSecrets = []*regexp.Regexp{
	regexp.MustCompile(`(?mi)^\s*(?:incominguser|outgoinguser)\s+"?[^\s"]+"?\s+(\S+)`),
	regexp.MustCompile(`(?mi)["']?(?:secret|password|passwd)["']?\s*[:=]\s*([^\s,}]+)`),
	regexp.MustCompile(`(\$2[aby]\$\d\d\$[./A-Za-z0-9]{53})`), // bcrypt
}

// shapes are how secrets look that nobody has told of: in URLs, and as parameters.
var shapes = []struct {
	re *regexp.Regexp
	by string
}{
	{regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://[^\s/?#:@"']*):[^\s/?#"']*@`), "${1}:" + hidden + "@"},
	{regexp.MustCompile(`(?i)\b(secret|password|passwd|token|key)=[^\s&,;"']+`), "${1}=" + hidden},
	{regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----`), hidden},
	{regexp.MustCompile(`\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}`), hidden},
}

// hide replaces secrets in a text.
func (l *secretList) hide(text string) string {
	for _, s := range l.known {
		text = strings.ReplaceAll(text, s, hidden)
	}
	for _, s := range shapes {
		text = s.re.ReplaceAllString(text, s.by)
	}
	return text
}
