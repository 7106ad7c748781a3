// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of what the includes of a targets.conf may add up to.
const (
	maxIncludeDepth = 16
	maxIncludes     = 4096
	maxIncludeBytes = 16 << 20
)

// tgtLine is a line of a targets.conf without comments, one that a backslash
// at its end continues together with the lines that follow.
type tgtLine struct {
	text string
	segs []tgtSegment // of the text, in order; at least one
}

// tgtSegment is where a part of a line comes from.
type tgtSegment struct {
	offset int // in the text
	pos    Pos
}

// pos is where the byte of the text at offset stands in the file.
func (l tgtLine) pos(offset int) Pos {
	i, found := slices.BinarySearchFunc(l.segs, offset, func(s tgtSegment, o int) int { return cmp.Compare(s.offset, o) })
	if !found {
		i--
	}
	p := l.segs[i].pos
	p.Column += utf8.RuneCountInString(l.text[l.segs[i].offset:offset])
	return p
}

// tgtReader turns a targets.conf and all that it includes into one sequence of
// lines, by the rules of the library that tgt-admin reads it with
// (Config::General): "#" begins a comment unless a backslash stands before it,
// "/*" and "*/" enclose one.
type tgtReader struct {
	lines   []tgtLine
	files   []string // that were read, by the names for messages
	reading []string // canonical paths of the file and those that include it
	done    map[string]bool
	bytes   int
	comment bool // a comment in C's style goes on
	errs    Errors
	notes   Errors
}

func (r *tgtReader) fail(pos Pos, key, format string, args ...any) {
	r.errs = append(r.errs, &Error{Pos: pos, Key: key, Err: fmt.Errorf(format, args...)})
}

// file takes the lines of one file, its name is name.
func (r *tgtReader) file(name string, data []byte) {
	r.files = append(r.files, name)
	var line tgtLine
	n := 0
	for text := range strings.Lines(string(data)) {
		n++
		pos := Pos{name, n, 1}
		text = strings.TrimRight(r.uncomment(strings.TrimRight(text, "\r\n"), pos), " \t")
		start := len(text) - len(strings.TrimLeft(text, " \t"))
		pos.Column += utf8.RuneCountInString(text[:start])
		seg := tgtSegment{len(line.text), pos}
		text = text[start:]
		if strings.HasSuffix(text, `\`) && !strings.HasSuffix(text, `\\`) {
			line = tgtLine{line.text + text[:len(text)-1], append(line.segs, seg)}
			continue
		}
		if line.text += text; line.text != "" {
			line.segs = append(line.segs, seg)
			r.line(line)
		}
		line = tgtLine{}
	}
	if line.text != "" {
		r.line(line)
	}
	if r.comment {
		r.fail(Pos{name, n, 1}, "", "a comment that began with /* has no end")
		r.comment = false
	}
}

// inlineComment is a comment in C's style that ends on its line.
var inlineComment = regexp.MustCompile(`/\*.*\*/`)

// uncomment returns a line without the comments in it. One in C's style that
// ends on a later line has to begin its line.
func (r *tgtReader) uncomment(text string, pos Pos) string {
	if !r.comment {
		text = inlineComment.ReplaceAllStringFunc(text, func(s string) string {
			return strings.Repeat(" ", utf8.RuneCountInString(s)) // so that what follows keeps its column
		})
		r.comment = strings.HasPrefix(strings.TrimLeft(text, " \t"), "/*")
		if !r.comment {
			return stripComment(text)
		}
	}
	if _, after, ends := strings.Cut(text, "*/"); ends {
		r.comment = false
		if strings.TrimSpace(after) != "" {
			r.fail(pos, "", "put what follows the end of a comment on a line of its own")
		}
	}
	return ""
}

// stripComment cuts a line at the first "#" without a backslash before it.
func stripComment(s string) string {
	for i := range len(s) {
		if s[i] == '#' && (i == 0 || s[i-1] != '\\') {
			return s[:i]
		}
	}
	return s
}

// line takes a line, or what it includes.
func (r *tgtReader) line(l tgtLine) {
	d := l.directive()
	switch strings.ToLower(d.name) {
	case "include":
		r.include(d, false)
	case "includeoptional":
		r.include(d, true)
	default:
		r.lines = append(r.lines, l)
	}
}

// include takes the lines of every file that a directive names: a file, the
// files of a directory, or those that match a pattern. A pattern may match
// nothing. What is relative is so to the directory of the including file.
func (r *tgtReader) include(d tgtDirective, optional bool) {
	path := d.value
	switch {
	case path == "":
		r.fail(d.pos, d.name, "has no value")
		return
	case !filepath.IsAbs(path):
		path = filepath.Join(directory(d.pos.File), path)
	}
	var paths []string // of a pattern or directory
	info, err := os.Stat(path)
	switch {
	case strings.ContainsAny(path, "{}"):
		r.fail(d.valuePos, d.name, "braces in a pattern are not supported")
	case strings.ContainsAny(path, `*?[`):
		if paths, err = filepath.Glob(path); err != nil {
			r.fail(d.valuePos, d.name, "%q is not a pattern: %w", d.value, err)
		}
	case err == nil && info.IsDir():
		paths, _ = filepath.Glob(filepath.Join(quoteGlob(path), "*"))
		hidden, _ := filepath.Glob(filepath.Join(quoteGlob(path), ".*"))
		paths = append(hidden, paths...)
	case err == nil:
		r.includeFile(d, path)
	case !optional:
		r.fail(d.valuePos, d.name, "%w", cause(err, "can't include %q", path))
	}
	slices.Sort(paths)
	for _, p := range slices.Compact(paths) {
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() {
			r.includeFile(d, p)
		}
	}
}

// globMeta are the characters of a pattern that match others than themselves.
var globMeta = regexp.MustCompile(`[\\*?[]`)

// quoteGlob makes a path a pattern that matches itself alone.
func quoteGlob(path string) string {
	return globMeta.ReplaceAllString(path, `\$0`)
}

// includeFile takes the lines of one included file, once.
func (r *tgtReader) includeFile(d tgtDirective, path string) {
	canonical, data, err := r.readInclude(path)
	switch {
	case err != nil:
		r.fail(d.valuePos, d.name, "%w", err)
	case slices.Contains(r.reading, canonical):
		r.fail(d.valuePos, d.name, "%q includes itself", path)
	case r.done[canonical]:
		r.notes = append(r.notes, &Error{Pos: d.valuePos, Key: d.name, Err: fmt.Errorf("%q was included before, and is once only", path)})
	default:
		r.done[canonical] = true
		r.reading = append(r.reading, canonical)
		r.file(path, data)
		r.reading = r.reading[:len(r.reading)-1]
	}
}

// readInclude reads an included file, within the bounds for all of them.
func (r *tgtReader) readInclude(path string) (canonical string, data []byte, err error) {
	if canonical, err = filepath.EvalSymlinks(path); err != nil {
		return "", nil, cause(err, "can't include %q", path)
	}
	if slices.Contains(r.reading, canonical) || r.done[canonical] {
		return canonical, nil, nil
	}
	if len(r.reading) > maxIncludeDepth || len(r.done) > maxIncludes || r.bytes > maxIncludeBytes {
		return "", nil, fmt.Errorf("can't include %q: too many or too large files are included", path)
	}
	data, err = readFile(path)
	r.bytes += len(data)
	if err != nil {
		return "", nil, fmt.Errorf("can't include %q: %w", path, err)
	}
	return canonical, data, nil
}
