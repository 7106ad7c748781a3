// SPDX-License-Identifier: Apache-2.0

package plan

import "github.com/gotgtd/gotgtd/target/config"

// Metrics say where Prometheus can ask; a zero Listen: nowhere.
type Metrics struct {
	Listen    string `json:"listen"`
	WebConfig string `json:"web_config,omitempty"`
}

// MetricsOf describes the metrics of a configuration.
func MetricsOf(c *config.Config) *Metrics {
	return &Metrics{c.Metrics.Listen, c.Metrics.WebConfig}
}

// protected says what is asked of those who scrape.
func (m *Metrics) protected() string {
	if m.WebConfig == "" {
		return "without TLS and passwords"
	}
	return "as " + m.WebConfig + " says"
}

// metrics compares where Prometheus can ask.
func (p *planner) metrics(wanted *Metrics) {
	was := p.running.Metrics
	if was == nil || *was == *wanted {
		return
	}
	if was.Listen == wanted.Listen {
		p.note(Change{Op: "~", Metrics: wanted.Listen, What: wanted.protected() + ", not " + was.protected() + " any more"})
		return
	}
	if was.Listen != "" {
		p.note(Change{Op: "-", Metrics: was.Listen, What: "Prometheus can't scrape there any more, nor is the page there"})
	}
	if wanted.Listen != "" {
		p.note(Change{Op: "+", Metrics: wanted.Listen, What: wanted.protected()})
	}
}
