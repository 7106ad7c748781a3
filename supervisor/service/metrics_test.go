// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// scrape returns the values of a page of metrics, by name and label.
func scrape(address string) (map[string]string, error) {
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != metricsType {
		return nil, fmt.Errorf("%s: %v, %v", resp.Status, resp.Header, err)
	}
	all := map[string]string{}
	for _, line := range strings.Split(string(text), "\n") {
		if name, value, ok := strings.Cut(line, " "); ok && !strings.HasPrefix(line, "#") {
			all[name] = value
		}
	}
	return all, nil
}

// TestMetrics: what status tells can be scraped, reloads are counted with their outcome, and no
// connection is refused while the supervisor replaces itself, after which it goes on counting.
func TestMetrics(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	s := newSupervised(t, func(c *Config) { c.Metrics = address })
	s.fault("store 2")
	s.run()
	s.untilServing()
	s.until("the service has stored its descriptors", func(st Status) bool { return len(st.Stored) == 2 })
	s.fault("exit")
	if _, err := s.Reload(s.context()); err == nil {
		t.Fatal("the reload has succeeded")
	}
	want := func(what string, want map[string]string) {
		t.Helper()
		all, err := scrape(address)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for name := range want {
			got[name] = all[name]
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	want("a reload has failed", map[string]string{
		`upgraded_state{state="serving"}`: "1", `upgraded_state{state="stopped"}`: "0", "upgraded_generation": "1", "upgraded_sockets": "1",
		`upgraded_reloads_total{result="success"}`: "0", `upgraded_reloads_total{result="failure"}`: "1", "upgraded_last_reload_successful": "0",
	})
	s.fault("")
	s.reload()
	want("a reload has succeeded", map[string]string{
		`upgraded_reloads_total{result="success"}`: "1", `upgraded_reloads_total{result="failure"}`: "1", "upgraded_last_reload_successful": "1",
	})
	stop := make(chan struct{})
	var scraper sync.WaitGroup
	scraper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			// One that is under way is cut when the program is replaced.
			if _, err := scrape(address); errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("a scrape during a reexec: %v", err)
				return
			}
		}
	})
	for range 3 {
		s.replaceBinary("")
		if _, err := s.Reexec(s.context()); err != nil {
			t.Fatalf("reexec: %v\n%s", err, s.log)
		}
	}
	close(stop)
	scraper.Wait()
	want("after reexecs", map[string]string{"upgraded_reexecs_total": "3", `upgraded_reloads_total{result="success"}`: "1", `upgraded_reloads_total{result="failure"}`: "1"})
}

// TestMetricsAreDocumented compares the table in docs/metrics.md with what there is, and has each
// name quoted as it must be.
func TestMetricsAreDocumented(t *testing.T) {
	st := Status{State: Serving, Main: new(GenerationInfo), Stored: map[string]int{"a\"b\\c\nd\xff": 3}, Failure: &Failure{},
		Vault: &VaultInfo{Held: 2, Max: 7, Names: map[string]int{"session": 2}, Refused: 1}, Reloads: Reloads{Last: time.Unix(1, 0), LastGood: time.Unix(1, 0)}}
	page := st.metrics()
	if !strings.Contains(page, `upgraded_stored_descriptors{name="a\"b\\c\nd`+"\uFFFD"+`"} 3`) {
		t.Errorf("a name is not quoted:\n%s", page)
	}
	for _, line := range []string{`upgraded_vault_descriptors{name="session"} 2`, "upgraded_vault_max_descriptors 7", "upgraded_vault_refused_total 1"} {
		if !strings.Contains(page, line+"\n") {
			t.Errorf("no line %q in\n%s", line, page)
		}
	}
	doc, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var have, listed []string
	for _, m := range regexp.MustCompile(`(?m)^# TYPE upgraded_([a-z_]+) (\w+)$`).FindAllStringSubmatch(page, -1) {
		have = append(have, m[1]+" "+m[2])
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `upgraded_([a-z_]+)(?:\\{[a-z, ]+\\})?` \\| (\\w+) \\|").FindAllStringSubmatch(string(doc), -1) {
		listed = append(listed, m[1]+" "+m[2])
	}
	slices.Sort(have)
	slices.Sort(listed)
	if diff := cmp.Diff(have, listed); diff != "" || len(have) == 0 {
		t.Errorf("docs/metrics.md (-program +document):\n%s", diff)
	}
}
