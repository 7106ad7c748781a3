// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
)

const dashboardFile = "../../docs/grafana/gotgtd.json"

// A dashboardQuery is an expression of the dashboard, and the panel that has it.
type dashboardQuery struct{ panel, expression string }

// dashboardQueries returns all queries of the dashboard for Grafana, as Grafana would send them
// for all instances and targets.
func dashboardQueries(t *testing.T) (list []dashboardQuery) {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Annotations struct {
			List []struct{ Name, Expr string }
		}
		Templating struct {
			List []struct{ Name, Type, Query string }
		}
		Panels []struct {
			Title, Type string
			Targets     []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("$instance", ".*", "$target", ".*", "$__rate_interval", "1m")
	add := func(panel, expression string) {
		expression = fill.Replace(expression)
		if expression == "" || strings.Contains(expression, "$") {
			t.Errorf("%s: the query %q is empty or has a variable that is not known", panel, expression)
		}
		list = append(list, dashboardQuery{panel, expression})
	}
	for _, a := range d.Annotations.List {
		add(a.Name, a.Expr)
	}
	// A variable is label_values(SERIES, LABEL).
	values := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`)
	for _, v := range d.Templating.List {
		if v.Type != "query" {
			continue
		}
		m := values.FindStringSubmatch(v.Query)
		if m == nil {
			t.Errorf("variable %s: %q is not label_values(SERIES, LABEL)", v.Name, v.Query)
			continue
		}
		add("variable "+v.Name, "count by ("+m[2]+") ("+m[1]+")")
	}
	for _, p := range d.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q has no query", p.Title)
		}
		for _, target := range p.Targets {
			add(p.Title, target.Expr)
		}
	}
	if len(list) < 40 {
		t.Fatalf("%d queries were found", len(list))
	}
	return list
}

// dashboard runs each query of the dashboard: none has an error, nor no sample at all.
func (p *prometheus) dashboard(t *testing.T) {
	t.Helper()
	for _, q := range dashboardQueries(t) {
		if _, err := p.query(t.Context(), q.expression); err != nil {
			t.Errorf("panel %q of the dashboard: %v", q.panel, err)
		}
	}
}
