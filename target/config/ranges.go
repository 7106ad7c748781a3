// SPDX-License-Identifier: Apache-2.0

package config

import (
	"math"
	"strings"

	"github.com/gotgtd/gotgtd/target/scsi"
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
	"lowest-aligned-lba": {0, scsi.MaxLowestAlignedLBA},
	"page":               {0, scsi.MaxModePage},
	"subpage":            {0, scsi.MaxModeSubpage},
}

// rangeOf returns the range of the number at a path, such as "targets[0].tid".
func rangeOf(path string) (r numberRange, ok bool) {
	key := path[strings.LastIndexByte(path, '.')+1:]
	key, _, _ = strings.Cut(key, "[")
	r, ok = numberRanges[key]
	return r, ok
}
