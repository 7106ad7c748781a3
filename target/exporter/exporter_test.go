// SPDX-License-Identifier: Apache-2.0

package exporter

import (
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"

	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/handoff"
	"github.com/gotgtd/gotgtd/target/iscsi/tally"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/scsi/latency"
	"github.com/gotgtd/gotgtd/target/storage"
)

// full is a status with one of everything.
func full() control.Status {
	st := control.Status{Version: "1.2.3", Generation: 3}
	st.Started = time.Unix(1000, 0)
	st.Memory, st.MemoryLimit, st.MemoryWaiting = 4096, 1<<30, 9
	st.Upgrades = []handoff.Report{
		{Time: time.Unix(900, 0), Pause: 2 * time.Millisecond, Phases: []handoff.Phase{{Name: "freeze", Duration: time.Millisecond}}},
		{Time: time.Unix(1100, 0), Error: "no"},
	}
	st.Workers, st.WorkersBusy = 16, 2
	st.Totals = tally.Totals{
		Logins: []tally.Login{{Target: "", Reason: "target_not_found", Count: 4}, {Target: "iqn.2026-11.test:a", Count: 5}, {Target: "iqn.2026-11.test:gone", Reason: "out_of_resources", Count: 1}},
		Closed: map[string]uint64{"logout": 3}, Management: map[string]uint64{"abort_task": 2}, DigestErrors: map[string]uint64{"data": 7},
	}
	var read scsi.Work
	read.Count, read.Device.Sum, read.Queue.Sum = 4, 7*time.Second, time.Millisecond
	read.Device.Buckets[0], read.Device.Buckets[latency.Buckets-1], read.Queue.Buckets[1] = 2, 1, 3
	st.UpgradeTotals = handoff.TotalsOf(st.Upgrades)
	st.Targets = []target.TargetStatus{{
		TID: 1, Name: "iqn.2026-11.test:a", State: "ready", SessionTSIH: []uint16{7},
		Initiators: []scsi.Share{{Initiator: "iqn.2026-11.test:i", LUN: 1, Reads: 21, Writes: 22, ReadBytes: 23, WrittenBytes: 24}, {Reads: 31}},
		LUNs: []target.LUNStatus{
			{LUN: 0, UnitInfo: scsi.UnitInfo{Type: "controller"}},
			{LUN: 1, UnitInfo: scsi.UnitInfo{Type: "disk", Size: 1 << 20, Online: true, StorePath: "/srv/\xff.img"}, Counters: scsi.Counters{Reads: 2, Writes: 3, ReadBytes: 4, WrittenBytes: 5, Errors: 6}, Inflight: 9,
				Reservation: &scsi.Reservation{Type: "SPC-2"}, Space: &storage.Space{Allocated: 10, Free: 11, Total: 12},
				Activity: scsi.Activity{Commands: map[string]scsi.Work{"read": read}, Failures: map[string]uint64{"medium_error": 6}}},
			{LUN: 2, UnitInfo: scsi.UnitInfo{Type: "disk", Online: true, SWP: true, FlushFailed: true}, Reservation: &scsi.Reservation{Type: "none", Registrations: 1}, Error: "is missing"},
		},
	}}
	st.Sessions = []target.SessionStatus{{
		Initiator: "iqn.2026-11.test:i", Target: "iqn.2026-11.test:a", TSIH: 7, Started: time.Unix(1001, 0), Tasks: 8,
		Connections: []target.ConnectionStatus{{Remote: netip.MustParseAddrPort("192.0.2.1:1")}},
	}}
	return st
}

// gather returns what is scraped of a status, by name.
func gather(t *testing.T, st control.Status) map[string]*dto.MetricFamily {
	t.Helper()
	families, err := New(func() control.Status { return st }).Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*dto.MetricFamily{}
	for _, f := range families {
		all[f.GetName()] = f
	}
	return all
}

// value finds the metric with the labels, as in "lun=1", and returns its value.
func value(t *testing.T, all map[string]*dto.MetricFamily, name string, labels ...string) float64 {
	t.Helper()
	for _, m := range all[name].GetMetric() {
		var have []string
		for _, l := range m.GetLabel() {
			have = append(have, l.GetName()+"="+l.GetValue())
		}
		if !slices.ContainsFunc(labels, func(l string) bool { return !slices.Contains(have, l) }) {
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no %s with %v", name, labels)
	return 0
}

func TestValues(t *testing.T) {
	all := gather(t, full())
	for _, tc := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"gotgtd_build_info", []string{"version=1.2.3"}, 1},
		{"gotgtd_generation", nil, 3},
		{"gotgtd_start_time_seconds", nil, 1000},
		{"gotgtd_config_last_reload_successful", nil, 0},
		{"gotgtd_config_last_reload_success_timestamp_seconds", nil, 1000},
		{"gotgtd_last_upgrade_pause_seconds", nil, 0.002},
		{"gotgtd_last_upgrade_phase_seconds", []string{"phase=freeze"}, 0.001},
		{"gotgtd_buffer_bytes", nil, 4096},
		{"gotgtd_buffer_limit_bytes", nil, 1 << 30},
		{"gotgtd_buffer_waiting_commands", nil, 9},
		{"gotgtd_target_sessions", nil, 1},
		{"gotgtd_lun_info", []string{"lun=1", "path=/srv/\uFFFD.img"}, 1},
		{"gotgtd_lun_online", []string{"lun=1"}, 1},
		{"gotgtd_lun_online", []string{"lun=2"}, 0},
		{"gotgtd_lun_read_only", []string{"lun=1"}, 0},
		{"gotgtd_lun_read_only", []string{"lun=2"}, 1},
		{"gotgtd_lun_flush_failed", []string{"lun=2"}, 1},
		{"gotgtd_lun_read_commands_total", []string{"lun=1"}, 2},
		{"gotgtd_lun_write_commands_total", []string{"lun=1"}, 3},
		{"gotgtd_lun_read_bytes_total", []string{"lun=1"}, 4},
		{"gotgtd_lun_written_bytes_total", []string{"lun=1"}, 5},
		{"gotgtd_lun_store_errors_total", []string{"lun=1"}, 6},
		{"gotgtd_lun_inflight_commands", []string{"lun=1"}, 9},
		{"gotgtd_lun_commands_total", []string{"lun=1", "op=read"}, 4},
		{"gotgtd_lun_commands_total", []string{"lun=1", "op=flush"}, 0},
		{"gotgtd_lun_errors_total", []string{"lun=1", "kind=medium_error"}, 6},
		{"gotgtd_lun_errors_total", []string{"lun=2", "kind=medium_error"}, 0},
		{"gotgtd_workers", nil, 16},
		{"gotgtd_initiator_read_commands_total", []string{"initiator=iqn.2026-11.test:i", "lun=1"}, 21},
		{"gotgtd_initiator_write_commands_total", []string{"initiator=iqn.2026-11.test:i"}, 22},
		{"gotgtd_initiator_read_bytes_total", []string{"initiator=iqn.2026-11.test:i"}, 23},
		{"gotgtd_initiator_written_bytes_total", []string{"initiator=iqn.2026-11.test:i"}, 24},
		{"gotgtd_initiator_read_commands_total", []string{"initiator=other", "lun=other"}, 31},
		{"gotgtd_upgrades_total", []string{"result=success"}, 1},
		{"gotgtd_upgrades_total", []string{"result=failure"}, 1},
		{"gotgtd_lun_reservation_held", []string{"lun=1"}, 1},
		{"gotgtd_lun_allocated_bytes", []string{"lun=1"}, 10},
		{"gotgtd_lun_filesystem_free_bytes", []string{"lun=1"}, 11},
		{"gotgtd_lun_filesystem_size_bytes", []string{"lun=1"}, 12},
		{"gotgtd_lun_reservation_held", []string{"lun=2"}, 0},
		{"gotgtd_workers_busy", nil, 2},
		{"gotgtd_logins_total", []string{"target=iqn.2026-11.test:a", "result=success", "reason="}, 5},
		{"gotgtd_logins_total", []string{"target=iqn.2026-11.test:a", "result=failure", "reason=authentication_failed"}, 0},
		{"gotgtd_logins_total", []string{"target=", "result=failure", "reason=target_not_found"}, 4},
		{"gotgtd_logins_total", []string{"target=iqn.2026-11.test:gone", "reason=out_of_resources"}, 1},
		{"gotgtd_connections_closed_total", []string{"reason=logout"}, 3},
		{"gotgtd_connections_closed_total", []string{"reason=nop_timeout"}, 0},
		{"gotgtd_task_management_total", []string{"function=abort_task"}, 2},
		{"gotgtd_digest_errors_total", []string{"digest=data"}, 7},
		{"gotgtd_session_info", []string{"tsih=7", "address=192.0.2.1", "initiator=iqn.2026-11.test:i"}, 1},
		{"gotgtd_session_tasks", []string{"tsih=7"}, 8},
	} {
		if got := value(t, all, tc.name, tc.labels...); got != tc.want {
			t.Errorf("%s %v is %v, want %v", tc.name, tc.labels, got, tc.want)
		}
	}
	if n := len(all["gotgtd_lun_info"].GetMetric()); n != 2 {
		t.Errorf("%d logical units are shown, want 2: the controller is none", n)
	}
}

// TestDurations: what a bucket has, those of the shorter ones are in it, and the last has all.
func TestDurations(t *testing.T) {
	family := gather(t, full())["gotgtd_lun_command_duration_seconds"]
	got := map[string]*dto.Histogram{}
	for _, m := range family.GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == "stage" {
				got[l.GetValue()] = m.GetHistogram()
			}
		}
	}
	queue, device := got["queue"], got["device"]
	if len(got) != 2 || device.GetSampleCount() != 3 || device.GetSampleSum() != 7 || queue.GetSampleCount() != 3 || queue.GetSampleSum() != 0.001 {
		t.Fatalf("%v", got)
	}
	for i, want := range []struct{ bound, device, queue float64 }{{0.00001, 2, 0}, {0.00002, 2, 3}} {
		d, q := device.GetBucket()[i], queue.GetBucket()[i]
		if d.GetUpperBound() != want.bound || float64(d.GetCumulativeCount()) != want.device || float64(q.GetCumulativeCount()) != want.queue {
			t.Errorf("bucket %d: %v and %v, want %v", i, d, q, want)
		}
	}
	if last := device.GetBucket()[latency.Buckets-2]; last.GetUpperBound() != 5 || last.GetCumulativeCount() != 2 {
		t.Errorf("the last bucket with a bound: %v", last)
	}
}

// TestUpgradeDurations: pauses and phases are counted of upgrades that have succeeded.
func TestUpgradeDurations(t *testing.T) {
	all := gather(t, full())
	pause := all["gotgtd_upgrade_pause_seconds"].GetMetric()[0].GetHistogram()
	if pause.GetSampleCount() != 1 || pause.GetSampleSum() != 0.002 {
		t.Errorf("pauses: %v", pause)
	}
	phase := all["gotgtd_upgrade_phase_seconds"].GetMetric()[0]
	if phase.GetHistogram().GetSampleSum() != 0.001 || phase.GetLabel()[0].GetValue() != "freeze" {
		t.Errorf("phases: %v", phase)
	}
}

// TestNeverUpgraded: what has not happened has no value, and nothing has failed.
func TestNeverUpgraded(t *testing.T) {
	st := full()
	st.Upgrades = nil
	all := gather(t, st)
	if all["gotgtd_last_upgrade_pause_seconds"] != nil {
		t.Error("there is a pause without an upgrade")
	}
	if value(t, all, "gotgtd_config_last_reload_successful") != 1 {
		t.Error("a reload has failed that never was")
	}
}

// TestDocument compares the table of docs/metrics.md with what there is, kinds included.
func TestDocument(t *testing.T) {
	doc, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var listed, have []string
	for _, m := range regexp.MustCompile("(?m)^\\| `gotgtd_([a-z_]+)(?:\\{[a-z, ]+\\})?` \\| (gauge|counter|histogram) \\|").FindAllStringSubmatch(string(doc), -1) {
		listed = append(listed, m[1]+" "+m[2])
	}
	for name, f := range gather(t, full()) {
		if name, ok := strings.CutPrefix(name, "gotgtd_"); ok && !strings.HasPrefix(name, "process_") {
			have = append(have, name+" "+strings.ToLower(f.GetType().String()))
		}
	}
	slices.Sort(listed)
	slices.Sort(have)
	if diff := cmp.Diff(have, listed); diff != "" {
		t.Errorf("docs/metrics.md: -program +document\n%s", diff)
	}
}

// TestAlertsAreOfMetrics: each metric that an alert names is there.
func TestAlertsAreOfMetrics(t *testing.T) {
	rules, err := os.ReadFile("../../docs/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	all := gather(t, full())
	names := regexp.MustCompile(`gotgtd_[a-z_]+`).FindAllString(string(rules), -1)
	if len(names) == 0 {
		t.Fatal("the alerts name no metric")
	}
	for _, name := range names {
		if all[strings.TrimSuffix(name, "_bucket")] == nil {
			t.Errorf("there is no %s", name)
		}
	}
}
