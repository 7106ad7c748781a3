// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// goPackage is what `go list -json` has of a package that decides whether its tests
// see a change.
type goPackage struct {
	ImportPath   string
	Dir          string // made relative to the module's root
	Deps         []string
	TestGoFiles  []string
	XTestGoFiles []string
	TestImports  []string
	XTestImports []string
}

// goPackages lists the module's packages.
func goPackages(ctx context.Context) ([]goPackage, error) {
	out, err := command(ctx, "go", "list", "-json=ImportPath,Dir,Deps,TestGoFiles,XTestGoFiles,TestImports,XTestImports", "./...").Output()
	if err != nil {
		return nil, fmt.Errorf("can't list packages: %w", err)
	}
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	var all []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("can't read the list of packages: %w", err)
		}
		if p.Dir, err = filepath.Rel(root, p.Dir); err != nil {
			return nil, err
		}
		all = append(all, p)
	}
}

// changedFiles lists what differs from a commit, relative to the module's root: edited,
// deleted and new files, whether they are in git's index or not.
func changedFiles(ctx context.Context, since string) ([]string, error) {
	edited, err := command(ctx, "git", "diff", "--relative", "--no-renames", "--name-only", "-z", since, "--").Output()
	if err != nil {
		return nil, fmt.Errorf("can't ask git what has changed since %s: %w", since, err)
	}
	added, err := command(ctx, "git", "ls-files", "--others", "--exclude-standard", "-z").Output()
	if err != nil {
		return nil, fmt.Errorf("can't ask git for new files: %w", err)
	}
	return strings.FieldsFunc(string(edited)+string(added), func(r rune) bool { return r == 0 }), nil
}

// affected returns the packages whose tests see one of the changed files: those that the
// files belong to, those that read them in their tests, and all that import these, by
// whatever way. root is the module's root.
func affected(root string, all []goPackage, files []string) ([]string, error) {
	changed := make(map[string]bool)
	for _, file := range files {
		if file == "go.mod" || file == "go.sum" {
			return importPaths(all), nil
		}
		if p := owner(all, file); p != nil {
			changed[p.ImportPath] = true
			continue
		}
		for i := range all {
			reads, err := all[i].testsRead(root, file)
			if err != nil {
				return nil, err
			}
			if reads {
				changed[all[i].ImportPath] = true
			}
		}
	}
	reached := make(map[string]bool) // packages that changed or import one that did
	for _, p := range all {
		reached[p.ImportPath] = changed[p.ImportPath] || slices.ContainsFunc(p.Deps, func(d string) bool { return changed[d] })
	}
	var see []goPackage
	for _, p := range all {
		if slices.ContainsFunc(slices.Concat([]string{p.ImportPath}, p.TestImports, p.XTestImports), func(d string) bool { return reached[d] }) {
			see = append(see, p)
		}
	}
	return importPaths(see), nil
}

// owner finds the package in whose folder, or in a folder of whose without Go files, a
// file is. Files outside of all packages, such as those of docs, have none.
func owner(all []goPackage, file string) *goPackage {
	for dir := filepath.Dir(file); dir != "."; dir = filepath.Dir(dir) {
		if i := slices.IndexFunc(all, func(p goPackage) bool { return p.Dir == dir }); i >= 0 {
			return &all[i]
		}
	}
	return nil
}

// testsRead reports whether the package's tests name a file, or its top folder, of the module's
// root, as in "../../docs/".
func (p *goPackage) testsRead(root, file string) (bool, error) {
	top, _, _ := strings.Cut(filepath.ToSlash(file), "/")
	for _, name := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
		text, err := os.ReadFile(filepath.Join(root, p.Dir, name))
		if err != nil {
			return false, err
		}
		if bytes.Contains(text, []byte("../"+top)) {
			return true, nil
		}
	}
	return false, nil
}

func importPaths(packages []goPackage) []string {
	var paths []string
	for _, p := range packages {
		paths = append(paths, p.ImportPath)
	}
	return paths
}
