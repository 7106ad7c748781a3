// SPDX-License-Identifier: Apache-2.0

package main

// The storage drivers of this program, besides "file" and "ram": one line each.
import (
	_ "github.com/gotgtd/gotgtd/target/storage/nbd"    // nbd, exports of NBD servers
	_ "github.com/gotgtd/gotgtd/target/storage/plugin" // gotgt:NAME, the plug-ins of gotgt
)
