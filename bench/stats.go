// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// median returns the middle of the values, the lower of two; 0 of none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	return v[(len(v)-1)/2]
}

// percentile returns the value below which p per cent of the durations are.
func percentile(values []time.Duration, p int) time.Duration {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	return v[min(len(v)*p/100, len(v)-1)]
}

var perfAverage = regexp.MustCompile(`iops average (\d+)`)

// parsePerf finds the I/Os per second in what iscsi-perf prints.
func parsePerf(out string) (float64, error) {
	all := perfAverage.FindAllStringSubmatch(out, -1)
	if len(all) == 0 {
		return 0, fmt.Errorf("iscsi-perf printed no average:\n%.300s", out)
	}
	return strconv.ParseFloat(all[len(all)-1][1], 64)
}

var qemuSeconds = regexp.MustCompile(`Run completed in ([0-9.]+) seconds`)

// parseQEMU finds how long a run of qemu-img bench took.
func parseQEMU(out string, count int) (float64, error) {
	m := qemuSeconds.FindStringSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("qemu-img bench printed no time:\n%.300s", out)
	}
	seconds, err := strconv.ParseFloat(m[1], 64)
	if err != nil || seconds <= 0 {
		return 0, fmt.Errorf("qemu-img bench took %q seconds", m[1])
	}
	return float64(count) / seconds, nil
}
