// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// includer gathers the accounts and targets of a YAML file and of those that it
// includes: a file's own first, then those of its includes. Each list of all
// of them is as if it stood in one file, so canonical paths count through all.
type includer struct {
	dir      string // of the first file
	accounts []inFile[fileShared]
	targets  []inFile[fileTarget]
	files    []string // that were read, by the names for messages
	reading  []string // canonical paths of the file and those that include it
	done     map[string]bool
	bytes    int
	places   places
	errs     Errors
	notes    Errors
}

// inFile is a value with the directory of the file that it stands in.
type inFile[T any] struct {
	value *T
	dir   string
}

// newIncluder returns one that begins with the named file.
func newIncluder(name string) *includer {
	in := &includer{dir: directory(name), done: map[string]bool{}, places: places{}}
	if path, err := filepath.EvalSymlinks(name); err == nil {
		if path, err = filepath.Abs(path); err == nil {
			in.reading = []string{path}
		}
	}
	return in
}

// file takes what stands in a file that r has read, and what it includes.
func (in *includer) file(name string, f *fileIncluded, r *reader) {
	in.files = append(in.files, name)
	dir := directory(name)
	accounts, targets := len(in.accounts), len(in.targets)
	move := func(path string) string {
		return shiftIndex(shiftIndex(path, "accounts[", accounts), "targets[", targets)
	}
	first := len(in.files) == 1
	for path, p := range r.places {
		if path = move(path); first || strings.HasPrefix(path, "accounts[") || strings.HasPrefix(path, "targets[") {
			in.places[path] = p
		}
	}
	for _, e := range r.errs {
		e.path = move(e.path)
		in.errs = append(in.errs, e)
	}
	in.notes = append(in.notes, r.notes...)
	for i := range f.Accounts {
		in.accounts = append(in.accounts, inFile[fileShared]{&f.Accounts[i], dir})
	}
	for i := range f.Targets {
		in.targets = append(in.targets, inFile[fileTarget]{&f.Targets[i], dir})
	}
	for i, pattern := range f.Include {
		key := fmt.Sprintf("include[%d]", i)
		in.include(pattern, dir, place{r.places.find(key).pos, key})
	}
}

// shiftIndex adds n to the index that follows the prefix of a canonical path.
func shiftIndex(path, prefix string, n int) string {
	rest, ok := strings.CutPrefix(path, prefix)
	if !ok || n == 0 {
		return path
	}
	digits, rest, _ := strings.Cut(rest, "]")
	var index int
	if _, err := fmt.Sscan(digits, &index); err != nil {
		return path
	}
	return fmt.Sprintf("%s%d]%s", prefix, index+n, rest)
}

func (in *includer) fail(at place, format string, args ...any) {
	in.errs = append(in.errs, &Error{Pos: at.pos, Key: at.key, Err: fmt.Errorf(format, args...)})
}

// include takes the files that a pattern matches, in the order of their names. A
// pattern may match nothing; a name without wildcards has to be there. As in a
// shell, a wildcard does not match the dot that a name begins with.
func (in *includer) include(pattern, dir string, at place) {
	path := pattern
	switch {
	case path == "":
		in.fail(at, "%w", errMissing)
		return
	case !filepath.IsAbs(path):
		path = filepath.Join(quoteGlob(dir), path)
		if !globMeta.MatchString(pattern) {
			path = filepath.Join(dir, pattern)
		}
	}
	if !globMeta.MatchString(pattern) {
		in.includeFile(path, at)
		return
	}
	paths, err := filepath.Glob(path)
	if err != nil {
		in.fail(at, "%q is not a pattern: %w", pattern, err)
		return
	}
	slices.Sort(paths)
	hidden := strings.HasPrefix(filepath.Base(pattern), ".")
	for _, p := range paths {
		info, err := os.Stat(p)
		if err == nil && info.Mode().IsRegular() && (hidden || filepath.Base(p)[0] != '.') {
			in.includeFile(p, at)
		}
	}
}

// includeFile takes one file, once.
func (in *includer) includeFile(path string, at place) {
	canonical, err := filepath.EvalSymlinks(path)
	switch {
	case err != nil:
		in.fail(at, "%w", cause(err, "can't include %q", path))
		return
	case slices.Contains(in.reading, canonical):
		in.fail(at, "%q includes itself", path)
		return
	case in.done[canonical]:
		in.notes = append(in.notes, &Error{Pos: at.pos, Key: at.key, Err: fmt.Errorf("%q was included before, and is once only", path)})
		return
	case len(in.reading) > maxIncludeDepth || len(in.done) > maxIncludes || in.bytes > maxIncludeBytes:
		in.fail(at, "can't include %q: too many or too large files are included", path)
		return
	}
	data, err := readRegular(path)
	if err != nil {
		in.fail(at, "can't include %q: %w", path, err)
		return
	}
	in.done[canonical] = true
	in.bytes += len(data)
	in.reading = append(in.reading, canonical)
	r := &reader{file: path, places: places{}}
	var f fileIncluded
	r.read(data, &f)
	in.file(path, &f, r)
	in.reading = in.reading[:len(in.reading)-1]
}

// readRegular is readFile for what has to be a regular file: a FIFO would hold up
// the start.
func readRegular(path string) ([]byte, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	return readFile(path)
}
