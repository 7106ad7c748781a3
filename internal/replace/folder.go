// SPDX-License-Identifier: Apache-2.0

//go:build !withoutfoldersync

package replace

import (
	"errors"
	"os"
)

// SyncFolder makes what was made, renamed and removed in a folder outlast a power cut. A file's
// own fsync(2) is for what the file holds, and not for its name.
func SyncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
