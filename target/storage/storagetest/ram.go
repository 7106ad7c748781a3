// SPDX-License-Identifier: Apache-2.0

package storagetest

import "github.com/gotgtd/gotgtd/target/storage"

// NewRAM is [storage.NewRAM] that panics instead of returning an error. A store that
// is not closed is freed by the garbage collector.
func NewRAM(size int64) storage.Store {
	s, err := storage.NewRAM(size)
	if err != nil {
		panic(err)
	}
	return s
}
