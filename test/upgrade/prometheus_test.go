// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/test/peer"
)

// scrapeInterval is how often Prometheus asks, and how long it waits for an answer.
const scrapeInterval = time.Second

// TestPrometheus has a real Prometheus scrape while one generation follows the other under
// I/O: no scrape fails, none is missing, no counter begins anew.
func TestPrometheus(t *testing.T) {
	peer.Need(t, "prometheus", "promtool")
	listen, err := peer.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	d := startWith(t, builds.a.Path(t), "gotgtd.yaml", func(disk string) string {
		return fmt.Sprintf("metrics: {listen: %q}\ntargets:\n  - name: %s\n    luns: [{lun: 1, path: %s}]\n", listen, peer.IQN, disk)
	})
	lint(t, "http://"+listen+"/metrics")
	p := startPrometheus(t, listen)

	s, err := initiator.Dial(t.Context(), initiator.Options{Address: d.portals[0], TargetName: peer.IQN})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Settle(t.Context(), initiator.LUN(1)); err != nil {
		t.Fatal(err)
	}
	load := &initiator.Load{
		Sessions: []*initiator.Session{s}, LUN: initiator.LUN(1), Blocks: diskSize / blockSize, BlockSize: blockSize,
		Bytes: 4096, ReadPercent: 50, Depth: 8, Rate: 2000, Duration: 10 * time.Second,
	}
	var done uint64
	reports := during(t, d, 50*time.Millisecond, func() error {
		r, err := load.Run(t.Context())
		if err == nil {
			done = r.Commands()
		}
		return err
	})
	p.until(t, fmt.Sprintf("gotgtd_generation == %d", len(reports)+1))

	// What Prometheus has of it.
	if n := p.value(t, "min_over_time(up[1h])"); n != 1 {
		t.Error("a scrape has failed")
	}
	var last float64
	for _, at := range p.times(t, "up[1h]") {
		if last > 0 && at-last > 4*scrapeInterval.Seconds() {
			t.Errorf("between two scrapes are %.1f s", at-last)
		}
		last = at
	}
	for _, counter := range []string{"lun_read_commands", "lun_written_bytes", "session_write_commands", "session_read_bytes"} {
		if n := p.value(t, "max(resets(gotgtd_"+counter+"_total[1h]))"); n != 0 {
			t.Errorf("%s has begun anew", counter)
		}
	}
	if n := p.value(t, "sum(gotgtd_lun_read_commands_total + gotgtd_lun_write_commands_total)"); n < float64(done) {
		t.Errorf("Prometheus has %.0f commands, the initiator %d", n, done)
	}
	if n := p.value(t, "max(resets(gotgtd_process_cpu_seconds_total[1h]))"); n == 0 {
		t.Error("the processor time of one process after the other does not begin anew: no reset would be seen")
	}
	for _, counter := range []string{"lun_commands_total", "lun_command_duration_seconds_count", "lun_errors_total", "logins_total", "connections_closed_total", "upgrades_total", "upgrade_pause_seconds_count"} {
		if n := p.value(t, "max(resets(gotgtd_"+counter+"[1h]))"); n != 0 {
			t.Errorf("%s has begun anew", counter)
		}
	}
	if n := p.value(t, `sum(gotgtd_lun_command_duration_seconds_count{op=~"read|write", stage="device"})`); n < float64(done) {
		t.Errorf("Prometheus has the times of %.0f commands, the initiator has sent %d", n, done)
	}
	if n := p.value(t, `gotgtd_upgrades_total{result="success"}`); n != float64(len(reports)) {
		t.Errorf("Prometheus has %.0f upgrades, there were %d", n, len(reports))
	}
	p.dashboard(t)
	t.Logf("%d upgrades, %.0f scrapes", len(reports), p.value(t, "count_over_time(up[1h])"))
}

// lint has promtool look at what a page of metrics says.
func lint(t *testing.T, page string) {
	t.Helper()
	text := get(t, page)
	file := filepath.Join(t.TempDir(), "metrics")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := peer.Run(t.Context(), "sh", "-c", "promtool check metrics <"+file); err != nil {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

func get(t *testing.T, page string) string {
	t.Helper()
	resp, err := http.Get(page)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v\n%s", page, resp.Status, err, text)
	}
	return string(text)
}

// prometheus is one that runs.
type prometheus struct{ address string }

// startPrometheus runs a Prometheus that scrapes the target, and waits for the first scrape.
func startPrometheus(t *testing.T, target string) *prometheus {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("scrape_configs:\n  - job_name: gotgtd\n    scrape_interval: %[1]s\n    scrape_timeout: %[1]s\n    static_configs: [{targets: [%[2]q]}]\n", scrapeInterval, target)
	address, err := peer.FreePort()
	if err == nil {
		err = os.WriteFile(config, []byte(text), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	run, err := peer.Spawn("prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	if err != nil {
		t.Fatal(err)
	}
	p := &prometheus{address}
	t.Cleanup(func() {
		if err := run.Stop(); err != nil {
			t.Errorf("prometheus: %v", err)
		}
		if t.Failed() {
			t.Logf("prometheus:\n%.4096s", run.Log())
		}
	})
	p.until(t, "gotgtd_generation == 1")
	return p
}

// answer is what Prometheus says to a query.
type answer struct {
	Data struct {
		Result []struct {
			Value  [2]any   `json:"value"`
			Values [][2]any `json:"values"`
		} `json:"result"`
	} `json:"data"`
	Error string `json:"error"`
}

func (p *prometheus) query(ctx context.Context, expression string) (answer, error) {
	var a answer
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+"/api/v1/query?query="+url.QueryEscape(expression), nil)
	if err != nil {
		return a, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		return a, err
	}
	if a.Error != "" {
		return a, fmt.Errorf("%s: %s", expression, a.Error)
	}
	if len(a.Data.Result) == 0 {
		return a, fmt.Errorf("%s has no result", expression)
	}
	return a, nil
}

// until waits until a query has a result.
func (p *prometheus) until(t *testing.T, expression string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := peer.Until(ctx, func() error { _, err := p.query(ctx, expression); return err }); err != nil {
		t.Fatal(err)
	}
}

// value is a query's first value.
func (p *prometheus) value(t *testing.T, expression string) float64 {
	t.Helper()
	a, err := p.query(t.Context(), expression)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := a.Data.Result[0].Value[1].(string)
	n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return n
}

// times are when a range was scraped, in seconds.
func (p *prometheus) times(t *testing.T, expression string) (list []float64) {
	t.Helper()
	a, err := p.query(t.Context(), expression)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range a.Data.Result[0].Values {
		at, _ := v[0].(float64)
		list = append(list, at)
	}
	return list
}
