// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
)

// newDisk makes a file whose blocks are all allocated and in the page cache.
//
// It is written a page at a time. What is written 1 MiB at a time lies in the page cache in
// large folios, and ext4 walks over the blocks of a folio for each write to a part of it: 13 µs for
// 4 KiB, as much as gotgtd needs for all the rest. It is the walk that would be compared.
func newDisk(dir string, size int64) (string, error) {
	path := filepath.Join(dir, "disk.img")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	page := make([]byte, os.Getpagesize())
	for i := range page {
		page[i] = byte(i * 31)
	}
	for done := int64(0); done < size; done += int64(len(page)) {
		if _, err := f.Write(page); err != nil {
			return "", err
		}
	}
	return path, nil
}

// writeBack writes what is dirty of a file to the disk, so that it does not happen
// in the middle of a later measurement. The rest of the file system is others'
// business, and may take long.
func writeBack(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
