// SPDX-License-Identifier: Apache-2.0

package config

import (
	"math"
	"strings"
)

// numberRange is what a number may be.
type numberRange struct{ least, most int64 }

// numberRanges are those of keys whose Go type has its own bounds. The reader
// and the validator both have them from here, or a number beyond the type's bounds
// would have a message with these.
var numberRanges = map[string]numberRange{
	"tag":                {1, math.MaxUint16},
	"portal-groups":      {1, math.MaxUint16},
	"lun":                {0, maxLUN},
	"lowest-aligned-lba": {0, 1<<14 - 1}, // SBC-3 5.16.2
	"page":               {0, 0x3E},
	"subpage":            {0, 0xFE},
}

// rangeOf returns the range of the number at a path, such as "targets[0].tid".
func rangeOf(path string) (r numberRange, ok bool) {
	key := path[strings.LastIndexByte(path, '.')+1:]
	key, _, _ = strings.Cut(key, "[")
	r, ok = numberRanges[key]
	return r, ok
}
