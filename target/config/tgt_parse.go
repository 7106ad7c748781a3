// SPDX-License-Identifier: Apache-2.0

package config

import (
	"path/filepath"
	"regexp"
	"strings"
)

// tgtDirective is a directive of a targets.conf, or the head of a block.
type tgtDirective struct {
	name, value   string
	pos, valuePos Pos
}

// tgtTarget is a <target> block; two of the same name are one.
type tgtTarget struct {
	head       tgtDirective // its value is the target's name
	directives []tgtDirective
	stores     []*tgtStore
}

// tgtStore is a backing-store or direct-store, on one line or as a block.
type tgtStore struct {
	head       tgtDirective // its value is the path
	directives []tgtDirective
}

// storeDirectives are the directives and blocks that make a logical unit.
var storeDirectives = map[string]bool{"backing-store": true, "direct-store": true}

// tgtFile is the structure of a targets.conf, its includes in place.
type tgtFile struct {
	directives []tgtDirective
	targets    []*tgtTarget
}

// directive splits a line into a name and a value, which "=" or white space
// separates. A quoted value loses its quotes, and a backslash goes from before
// "$", "\", the quote and "#".
func (l tgtLine) directive() tgtDirective {
	d := tgtDirective{name: l.text, pos: l.pos(0)}
	d.valuePos = d.pos
	if i := strings.IndexAny(l.text, " \t="); i > 0 {
		d.name = l.text[:i]
		rest := strings.TrimLeft(l.text[i:], " \t")
		if after, ok := strings.CutPrefix(rest, "="); ok {
			rest = strings.TrimLeft(after, " \t")
		}
		d.value = unquote(rest)
		d.valuePos = l.pos(len(l.text) - len(rest))
	}
	return d
}

// escaped is a character together with a backslash that goes away.
var escaped = regexp.MustCompile(`\\([$\\"#])`)

func unquote(s string) string {
	if len(s) > 1 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	return escaped.ReplaceAllString(s, "$1")
}

// tgtParser finds the blocks in the lines of a targets.conf.
type tgtParser struct {
	reader *tgtReader
	file   tgtFile
	target *tgtTarget // the block that is open
	store  *tgtStore  // the block in it that is open

	// refused are the blocks that are open but can't be where they are. What is
	// in them is passed over.
	refused []string
}

// parseTGTFile reads a targets.conf and all that it includes.
func parseTGTFile(name string, data []byte) (*tgtFile, *tgtReader) {
	r := &tgtReader{done: map[string]bool{}}
	if canonical, err := filepath.EvalSymlinks(name); err == nil {
		r.reading = []string{canonical}
	}
	r.file(name, data)
	p := &tgtParser{reader: r}
	for _, l := range r.lines {
		p.line(l)
	}
	if p.store != nil {
		r.fail(p.store.head.pos, p.store.head.name, "the block has no end, </%s>", p.store.head.name)
	}
	if p.target != nil {
		r.fail(p.target.head.pos, "target", "the block has no end, </target>")
	}
	return &p.file, r
}

func (p *tgtParser) line(l tgtLine) {
	inner, isBlock := strings.CutPrefix(l.text, "<")
	if !isBlock {
		p.directive(l.directive())
		return
	}
	inner, closed := strings.CutSuffix(inner, ">")
	name, isEnd := strings.CutPrefix(inner, "/")
	switch {
	case !closed:
		p.reader.fail(l.pos(0), "", "%q: the closing > is missing", l.text)
	case isEnd:
		p.end(strings.TrimSpace(name), l.pos(0))
	default:
		inner, empty := strings.CutSuffix(inner, "/")
		head := tgtLine{"<" + inner, l.segs}.directive()
		head.name = strings.TrimPrefix(head.name, "<")
		p.begin(head)
		if empty {
			p.end(head.name, l.pos(0))
		}
	}
}

// begin opens a block.
func (p *tgtParser) begin(d tgtDirective) {
	fail := func(format string, args ...any) { p.reader.fail(d.pos, d.name, format, args...) }
	isStore := storeDirectives[d.name]
	switch {
	case len(p.refused) > 0:
	case d.name != "target" && !isStore:
		fail("there is no such block, only target, backing-store and direct-store")
	case d.value == "":
		fail("the block has no name")
	case p.store != nil:
		fail("a block inside of <%s>, which began at %s", p.store.head.name, p.store.head.pos)
	case isStore && p.target == nil:
		fail("stands outside of a <target> block")
	case isStore:
		p.store = p.target.store(d)
		return
	case p.target != nil:
		fail("a target inside of <target %s>, which began at %s", p.target.head.value, p.target.head.pos)
	default:
		p.target = p.file.target(d)
		return
	}
	p.refused = append(p.refused, d.name)
}

// end closes the innermost block.
func (p *tgtParser) end(name string, pos Pos) {
	switch n := len(p.refused); {
	case n > 0 && p.refused[n-1] == name:
		p.refused = p.refused[:n-1]
	case n > 0: // its beginning has been reported
	case p.store != nil && p.store.head.name == name:
		p.store = nil
	case p.store == nil && p.target != nil && name == "target":
		p.target = nil
	default:
		p.reader.fail(pos, name, "</%s> ends a block that did not begin", name)
	}
}

// directive takes a directive into the innermost block.
func (p *tgtParser) directive(d tgtDirective) {
	switch {
	case len(p.refused) > 0:
	case strings.HasPrefix(d.value, "<<"):
		p.reader.fail(d.valuePos, d.name, "here-documents are not supported")
	case d.value == "":
		p.reader.fail(d.pos, d.name, "has no value")
	case p.store != nil:
		p.store.directives = append(p.store.directives, d)
	case p.target == nil:
		p.file.directives = append(p.file.directives, d)
	case storeDirectives[d.name]:
		p.target.store(d)
	default:
		p.target.directives = append(p.target.directives, d)
	}
}

// target returns the block of that name, which may have begun before.
func (f *tgtFile) target(d tgtDirective) *tgtTarget {
	for _, t := range f.targets {
		if t.head.value == d.value {
			return t
		}
	}
	t := &tgtTarget{head: d}
	f.targets = append(f.targets, t)
	return t
}

// store returns the store of that kind and path, which may have been there
// before.
func (t *tgtTarget) store(d tgtDirective) *tgtStore {
	for _, s := range t.stores {
		if s.head.name == d.name && s.head.value == d.value {
			return s
		}
	}
	s := &tgtStore{head: d}
	t.stores = append(t.stores, s)
	return s
}
