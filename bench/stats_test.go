// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"
)

func TestMedianAndPercentile(t *testing.T) {
	if m := median([]float64{9, 1, 5}); m != 5 {
		t.Errorf("median %v", m)
	}
	if m := median(nil); m != 0 {
		t.Errorf("median of nothing %v", m)
	}
	var d []time.Duration
	for i := range 100 {
		d = append(d, time.Duration(100-i))
	}
	if p := percentile(d, 99); p != 100 {
		t.Errorf("99th percentile %v", p)
	}
	if p := percentile(d, 50); p != 51 {
		t.Errorf("50th percentile %v", p)
	}
}

func TestParsers(t *testing.T) {
	if v, err := parsePerf("iops average 12 (1 MB/s)\r\niops average 94421 (368 MB/s)  \nfinished."); err != nil || v != 94421 {
		t.Errorf("iscsi-perf: %v, %v", v, err)
	}
	if v, err := parseQEMU("Sending 1000 read requests\nRun completed in 0.500 seconds.\n", 1000); err != nil || v != 2000 {
		t.Errorf("qemu-img: %v, %v", v, err)
	}
	if _, err := parsePerf("connection refused"); err == nil {
		t.Error("iscsi-perf: no error for a failure")
	}
	if _, err := parseQEMU("", 1); err == nil {
		t.Error("qemu-img: no error for a failure")
	}
}
