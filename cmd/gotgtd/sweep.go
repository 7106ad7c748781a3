// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/gotgtd/gotgtd/internal/replace"
)

// sweep removes what commands and daemons have left beside the files that they write, when they were killed or the
// power was cut.
func (d *daemon) sweep() {
	if state := d.options.state(); state != "" {
		d.sweepFolder(state, func(name string) bool { return name == ledgerName || name == ledgerName+trySuffix })
	}
	file := d.options.file()
	if file == "" {
		return
	}
	d.sweepFolder(filepath.Join(filepath.Dir(file), secretsFolder), func(name string) bool { return strings.HasSuffix(name, secretSuffix) })
	if real, err := filepath.EvalSymlinks(file); err == nil {
		file = real
	}
	base := filepath.Base(file)
	d.sweepFolder(filepath.Dir(file), func(name string) bool { return name == base || name == base+backupSuffix })
}

func (d *daemon) sweepFolder(folder string, ours func(name string) bool) {
	removed, err := replace.Sweep(folder, ours)
	for _, path := range removed {
		d.log.Info("removed what was being written when its writer was killed or the power was cut", "path", path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		d.log.Warn("can't look for what killed writers have left: mend what the error names", "folder", folder, "error", err)
	}
}
