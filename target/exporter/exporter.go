// SPDX-License-Identifier: Apache-2.0

// Package exporter shows a daemon's state to Prometheus, by the conventions of its
// names and units. docs/metrics.md lists what there is. What counts goes on over
// upgrades: counters begin at zero with the first generation alone.
package exporter

import (
	"runtime"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/iscsi/tally"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/scsi/latency"
)

// New returns a registry with everything that status tells, and what the Go runtime
// tells of the process. status is called once for each scrape.
func New(status func() control.Status) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(&collector{status}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{Namespace: "gotgtd"}))
	return r
}

// collector makes metrics of a status.
type collector struct{ status func() control.Status }

// describe makes a metric with the labels that it has.
func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("gotgtd_"+name, help, labels, nil)
}

var unit = []string{"target", "lun"}

// What there is, in the order of docs/metrics.md.
var (
	buildInfo    = describe("build_info", "The program that runs; always 1.", "version", "goversion")
	generation   = describe("generation", "Number of the process that serves: 1 for the first, one more with each upgrade.")
	startTime    = describe("start_time_seconds", "When the process that serves was started, in seconds since 1970.")
	reloadGood   = describe("config_last_reload_successful", "Whether the last reload or upgrade has succeeded; 1 without any.")
	reloadTime   = describe("config_last_reload_success_timestamp_seconds", "When the configuration that is served was read, in seconds since 1970.")
	lastPause    = describe("last_upgrade_pause_seconds", "How long nothing was served in the last upgrade that has succeeded; absent without any.")
	lastPhases   = describe("last_upgrade_phase_seconds", "How long each phase of the last upgrade that has succeeded took; absent without any.", "phase")
	upgrades     = describe("upgrades_total", "Upgrades since the service was started.", "result")
	pauses       = describe("upgrade_pause_seconds", "How long nothing was served in upgrades that have succeeded.")
	phases       = describe("upgrade_phase_seconds", "How long each phase of upgrades that have succeeded took.", "phase")
	bufferBytes  = describe("buffer_bytes", "Memory that initiators have: commands, their data, and what else they send.")
	bufferLimit  = describe("buffer_limit_bytes", "The limit of that (limits.memory); one initiator is held up long before.")
	bufferWaits  = describe("buffer_waiting_commands", "Commands that wait for memory.")
	workers      = describe("workers", "Commands that may block and can be executed at once.")
	workersBusy  = describe("workers_busy", "Commands that may block and are executed.")
	logins       = describe("logins_total", "Logins of connections that have ended, with their result and the reason of a failure.", "target", "result", "reason")
	connsClosed  = describe("connections_closed_total", "Connections that have ended.", "reason")
	management   = describe("task_management_total", "Requests for a task management function.", "function")
	digestErrors = describe("digest_errors_total", "PDUs whose digest of the header or of the data does not match.", "digest")
	sessions     = describe("target_sessions", "Sessions that are open.", "target")
	targetInfo   = describe("target_info", "A target; always 1.", "target", "tid", "alias")
	targetReady  = describe("target_ready", "Whether a target lets initiators log in.", "target")
	sessionInfo  = describe("session_info", "A session; always 1.", "target", "tsih", "initiator", "address", "account")
	sessionStart = describe("session_start_time_seconds", "When a session began, in seconds since 1970.", "target", "tsih")
	sessionTasks = describe("session_tasks", "Commands of a session that are under way.", "target", "tsih")
	sessionConns = describe("session_connections", "Connections of a session.", "target", "tsih")
	sessionReads = describe("session_read_commands_total", "Commands of a session that have read blocks.", "target", "tsih")
	sessionWrite = describe("session_write_commands_total", "Commands of a session that have written blocks.", "target", "tsih")
	sessionIn    = describe("session_read_bytes_total", "Bytes that a session has read.", "target", "tsih")
	sessionOut   = describe("session_written_bytes_total", "Bytes that a session has written.", "target", "tsih")
	shareReads   = describe("initiator_read_commands_total", "Commands of an initiator that have read blocks of a logical unit, over its sessions.", "target", "lun", "initiator")
	shareWrites  = describe("initiator_write_commands_total", "Commands of an initiator that have written blocks of a logical unit, over its sessions.", "target", "lun", "initiator")
	shareIn      = describe("initiator_read_bytes_total", "Bytes that an initiator has read from a logical unit, over its sessions.", "target", "lun", "initiator")
	shareOut     = describe("initiator_written_bytes_total", "Bytes that an initiator has written to a logical unit, over its sessions.", "target", "lun", "initiator")
	unitInfo     = describe("lun_info", "A logical unit; always 1.", "target", "lun", "path", "naa", "serial", "backend")
	unitSize     = describe("lun_size_bytes", "Size of a logical unit.", unit...)
	unitOnline   = describe("lun_online", "Whether a logical unit is online and its backing store open.", unit...)
	unitReadOnly = describe("lun_read_only", "Whether a logical unit refuses writes.", unit...)
	unitFlush    = describe("lun_flush_failed", "Whether a flush has failed: what was written before it may not be on stable storage.", unit...)
	unitReads    = describe("lun_read_commands_total", "Commands that have read blocks.", unit...)
	unitWrites   = describe("lun_write_commands_total", "Commands that have written blocks.", unit...)
	unitIn       = describe("lun_read_bytes_total", "Bytes that were read.", unit...)
	unitOut      = describe("lun_written_bytes_total", "Bytes that were written.", unit...)
	unitErrors   = describe("lun_store_errors_total", "Commands that have failed in the backing store.", unit...)
	unitAlloc    = describe("lun_allocated_bytes", "Space that the blocks of a logical unit take; absent where that is not known.", unit...)
	unitFree     = describe("lun_filesystem_free_bytes", "Free space of the file system that a logical unit is in; absent where that is not known.", unit...)
	unitTotal    = describe("lun_filesystem_size_bytes", "Size of that file system.", unit...)
	unitReserved = describe("lun_reservation_held", "Whether an initiator has reserved a logical unit.", unit...)
	unitInflight = describe("lun_inflight_commands", "Commands to a logical unit that are under way.", unit...)
	unitCommands = describe("lun_commands_total", "Commands that have ended, the failed ones included.", "target", "lun", "op")
	unitDuration = describe("lun_command_duration_seconds", "How long commands waited to be executed (queue), and how long the backing store took (device).", "target", "lun", "op", "stage")
	unitFailures = describe("lun_errors_total", "Commands that have ended with this sense key or status.", "target", "lun", "kind")
)

// Describe implements [prometheus.Collector]. There is no list: which logical units and
// sessions there are changes.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	st := c.status()
	g := gatherer{ch}
	g.process(&st)
	g.counts(&st)
	for i := range st.Targets {
		g.target(&st.Targets[i])
	}
	for i := range st.Sessions {
		g.session(&st.Sessions[i])
	}
}

// gatherer sends metrics to the registry.
type gatherer struct{ ch chan<- prometheus.Metric }

func (g gatherer) gauge(d *prometheus.Desc, v float64, labels ...string) {
	g.send(d, prometheus.GaugeValue, v, labels)
}

func (g gatherer) flag(d *prometheus.Desc, on bool, labels ...string) {
	v := 0.0
	if on {
		v = 1
	}
	g.gauge(d, v, labels...)
}

func (g gatherer) counter(d *prometheus.Desc, n uint64, labels ...string) {
	g.send(d, prometheus.CounterValue, float64(n), labels)
}

// send sends a metric. Labels can have any bytes, as the path of a file does, where
// Prometheus takes UTF-8 alone.
func (g gatherer) send(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels []string) {
	for i := range labels {
		labels[i] = strings.ToValidUTF8(labels[i], "\uFFFD")
	}
	g.ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
}

func (g gatherer) process(st *control.Status) {
	g.gauge(buildInfo, 1, st.Version, runtime.Version())
	g.gauge(generation, float64(st.Generation))
	g.gauge(startTime, float64(st.Started.UnixNano())/1e9)
	g.gauge(bufferBytes, float64(st.Memory))
	g.gauge(bufferLimit, float64(st.MemoryLimit))
	g.gauge(bufferWaits, float64(st.MemoryWaiting))
	g.gauge(workers, float64(st.Workers))
	g.gauge(workersBusy, float64(st.WorkersBusy))
	t := &st.UpgradeTotals
	g.counter(upgrades, t.Succeeded, "success")
	g.counter(upgrades, t.Failed, "failure")
	g.durations(pauses, &t.Pause)
	for name, p := range t.Phases {
		g.durations(phases, &p, name)
	}
	n := len(st.Upgrades)
	g.flag(reloadGood, n == 0 || st.Upgrades[n-1].Error == "")
	g.gauge(reloadTime, float64(st.Started.UnixNano())/1e9)
	for i := len(st.Upgrades) - 1; i >= 0; i-- {
		if u := &st.Upgrades[i]; u.Error == "" {
			g.gauge(lastPause, u.Pause.Seconds())
			for _, p := range u.Phases {
				g.gauge(lastPhases, p.Duration.Seconds(), p.Name)
			}
			return
		}
	}
}

// counts shows what has become of logins and connections. What there can be is there from the
// beginning, as far as it does not depend on the target.
func (g gatherer) counts(st *control.Status) {
	c := &st.Totals
	for _, reason := range tally.Reasons() {
		g.counter(connsClosed, c.Closed[reason], reason)
	}
	for _, function := range tally.Functions() {
		g.counter(management, c.Management[function], function)
	}
	for _, digest := range []string{"header", "data"} {
		g.counter(digestErrors, c.DigestErrors[digest], digest)
	}
	all := make(map[[2]string]uint64)
	for _, reason := range tally.Refusals() {
		all[[2]string{"", reason}] = 0
	}
	for i := range st.Targets {
		for _, reason := range []string{"", "authentication_failed", "not_authorized"} {
			all[[2]string{st.Targets[i].Name, reason}] = 0
		}
	}
	for _, l := range c.Logins {
		all[[2]string{l.Target, l.Reason}] += l.Count
	}
	for key, n := range all {
		result := "success"
		if key[1] != "" {
			result = "failure"
		}
		g.counter(logins, n, key[0], result, key[1])
	}
}

func (g gatherer) target(t *target.TargetStatus) {
	g.gauge(targetInfo, 1, t.Name, strconv.Itoa(t.TID), t.Alias)
	g.flag(targetReady, t.State == "ready", t.Name)
	g.gauge(sessions, float64(len(t.SessionTSIH)), t.Name)
	for i := range t.Initiators {
		g.share(t.Name, &t.Initiators[i])
	}
	for i := range t.LUNs {
		if l := &t.LUNs[i]; l.Type == "disk" {
			g.unit(t.Name, l)
		}
	}
}

// share shows what an initiator has moved. "other" is no initiator's name: those begin with
// what gives them.
func (g gatherer) share(target string, s *scsi.Share) {
	lun, initiator := strconv.Itoa(int(s.LUN)), s.Initiator
	if initiator == "" {
		lun, initiator = "other", "other"
	}
	g.counter(shareReads, s.Reads, target, lun, initiator)
	g.counter(shareWrites, s.Writes, target, lun, initiator)
	g.counter(shareIn, s.ReadBytes, target, lun, initiator)
	g.counter(shareOut, s.WrittenBytes, target, lun, initiator)
}

func (g gatherer) unit(target string, l *target.LUNStatus) {
	lun := strconv.Itoa(int(l.LUN))
	g.gauge(unitInfo, 1, target, lun, l.StorePath, l.NAA, l.Serial, l.StoreType)
	g.gauge(unitSize, float64(l.Size), target, lun)
	g.flag(unitOnline, l.Online && l.Error == "", target, lun)
	g.flag(unitReadOnly, l.ReadOnly || l.SWP, target, lun)
	g.flag(unitFlush, l.FlushFailed, target, lun)
	c := &l.Counters
	g.counter(unitReads, c.Reads, target, lun)
	g.counter(unitWrites, c.Writes, target, lun)
	g.counter(unitIn, c.ReadBytes, target, lun)
	g.counter(unitOut, c.WrittenBytes, target, lun)
	g.counter(unitErrors, c.Errors, target, lun)
	g.gauge(unitInflight, float64(l.Inflight), target, lun)
	if s := l.Space; s != nil {
		g.gauge(unitAlloc, float64(s.Allocated), target, lun)
		g.gauge(unitFree, float64(s.Free), target, lun)
		g.gauge(unitTotal, float64(s.Total), target, lun)
	}
	g.flag(unitReserved, l.Reservation != nil && l.Reservation.Type != "none", target, lun)
	g.activity(target, lun, &l.Activity)
}

// activity shows how commands have ended. What there can be is there from the beginning, lest
// the first of it be no increase; but for durations, of which there are many.
func (g gatherer) activity(target, lun string, a *scsi.Activity) {
	for _, op := range scsi.WorkKinds() {
		w := a.Commands[op]
		g.counter(unitCommands, w.Count, target, lun, op)
		if w.Device.Count() > 0 {
			g.durations(unitDuration, &w.Queue, target, lun, op, "queue")
			g.durations(unitDuration, &w.Device, target, lun, op, "device")
		}
	}
	for _, kind := range scsi.Failures() {
		g.counter(unitFailures, a.Failures[kind], target, lun, kind)
	}
}

// durations sends a histogram.
func (g gatherer) durations(d *prometheus.Desc, c *latency.Counts, labels ...string) {
	buckets := make(map[float64]uint64, latency.Buckets)
	n := uint64(0)
	for i, bound := range latency.Bounds() {
		n += c.Buckets[i]
		buckets[bound.Seconds()] = n
	}
	n += c.Buckets[latency.Buckets-1]
	g.ch <- prometheus.MustNewConstHistogram(d, n, c.Sum.Seconds(), buckets, labels...)
}

func (g gatherer) session(s *target.SessionStatus) {
	name, tsih := s.Target, strconv.Itoa(int(s.TSIH))
	address := ""
	if len(s.Connections) > 0 {
		address = s.Connections[0].Remote.Addr().String()
	}
	g.gauge(sessionInfo, 1, name, tsih, s.Initiator, address, s.Account)
	g.gauge(sessionStart, float64(s.Started.UnixNano())/1e9, name, tsih)
	g.gauge(sessionTasks, float64(s.Tasks), name, tsih)
	g.gauge(sessionConns, float64(len(s.Connections)), name, tsih)
	c := &s.Counters
	g.counter(sessionReads, c.Reads, name, tsih)
	g.counter(sessionWrite, c.Writes, name, tsih)
	g.counter(sessionIn, c.ReadBytes, name, tsih)
	g.counter(sessionOut, c.WrittenBytes, name, tsih)
}
