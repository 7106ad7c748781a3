// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"runtime/pprof"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/exporter"
)

// withStates has the runtime tell of each goroutine by itself, with what it waits for and since when.
const withStates = 2

// Diagnosis implements [control.Daemon].
func (d *daemon) Diagnosis() control.Diagnosis {
	var stacks bytes.Buffer
	err := pprof.Lookup("goroutine").WriteTo(&stacks, withStates)
	text, metricsErr := metricsText(exporter.New(d.Status))
	answer := control.Diagnosis{Goroutines: stacks.String(), Metrics: text, Log: d.recent.String()}
	if err := errors.Join(err, metricsErr); err != nil {
		answer.Error = err.Error()
	}
	return answer
}

// metricsText is what a scrape would read.
func metricsText(from prometheus.Gatherer) (string, error) {
	families, err := from.Gather()
	var text strings.Builder
	for _, f := range families {
		if _, writeErr := expfmt.MetricFamilyToText(&text, f); writeErr != nil {
			err = errors.Join(err, fmt.Errorf("metric %s: %w", f.GetName(), writeErr))
		}
	}
	return text.String(), err
}
