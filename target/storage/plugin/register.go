// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"

	"github.com/gotgtd/gotgtd/target/storage"
)

func init() {
	storage.Register("gotgt", storage.Driver{
		Open:  openDriver,
		Check: func(name string, _ storage.Options) error { return Registered(name) },
		Needs: storage.SettingName | storage.SettingPath,
		Takes: storage.SettingSize | storage.SettingOptions | storage.SettingSync,
		File:  fileOf,
		Identify: func(name string, o storage.Options) (string, int64, error) {
			return identity(name, o.Path), o.Size, nil
		},
	})
}

// identity is the ID of a store: nothing but its path tells what a plug-in opens.
func identity(name, path string) string { return name + ":" + path }

// openDriver opens a store of the plug-in that is registered with gotgt as name.
func openDriver(_ context.Context, name string, o storage.Options) (storage.Store, error) {
	return Open(Options{Name: name, Options: o})
}

// fileOf says that gotgt's own plug-in "file" serves the file of its path.
func fileOf(name, path string) string {
	if name == "file" {
		return path
	}
	return ""
}
