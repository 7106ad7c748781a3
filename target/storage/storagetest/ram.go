// SPDX-License-Identifier: Apache-2.0

package storagetest

import "github.com/gotgtd/gotgtd/target/storage"

// NewRAM is [storage.NewRAM] for where nothing can be done about an error. A
// store that nobody closes goes with the garbage.
func NewRAM(size int64) storage.Store {
	s, err := storage.NewRAM(size)
	if err != nil {
		panic(err)
	}
	return s
}
