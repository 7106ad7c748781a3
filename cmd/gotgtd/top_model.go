// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
)

// topModel is what top shows, and how.
type topModel struct {
	view    topView
	by      topOrder
	reverse bool
	raw     sizes
	delay   time.Duration

	before, now *topSample // before is nil after the first
	err         error      // why there is none later than now
	failed      time.Time  // when that began

	// Of the terminal alone.
	width, height int
	offset        int // the first row that is shown
	help          bool
	left          int                // how many samples until the end; 0: no end
	delays        chan time.Duration // to who polls; holds one
}

// take takes up a sample, or why there is none.
func (m *topModel) take(s *topSample, err error) {
	if err != nil {
		if m.err == nil {
			m.failed = time.Now()
		}
		m.err = err
		return
	}
	m.before, m.now, m.err = m.now, s, nil
}

// Init implements [tea.Model].
func (m *topModel) Init() tea.Cmd { return nil }

// Update implements [tea.Model].
func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case polled:
		m.take(msg.sample, msg.err)
		if m.left == 1 {
			return m, tea.Quit
		}
		m.left = max(m.left-1, 0)
	case tea.KeyPressMsg:
		if m.key(msg.String()) {
			return m, tea.Quit
		}
	}
	return m, nil
}

// View implements [tea.Model].
func (m *topModel) View() tea.View {
	v := tea.NewView("")
	v.AltScreen, v.WindowTitle = true, "gotgtd top"
	if m.width > 0 && m.height > 0 { // the terminal has told
		v.Content = strings.Join(m.page(m.width, m.height), "\n")
	}
	return v
}

// delaySteps are what + and - choose from.
var delaySteps = []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute}

// key does what a key asks for, and tells whether that is the end.
func (m *topModel) key(k string) (quit bool) {
	if m.help && k != "q" && k != "ctrl+c" { // any key
		m.help = false
		return false
	}
	switch k {
	case "q", "ctrl+c":
		return true
	case "?", "h":
		m.help = true
	case "l":
		m.show(topLUNs)
	case "t":
		m.show(topSessions)
	case "i":
		m.show(topInitiators)
	case "s":
		orders := topOrders(m.view)
		m.by = orders[(slices.Index(orders, m.by)+1)%len(orders)]
	case "r":
		m.reverse = !m.reverse
	case "b":
		m.raw = !m.raw
	case "+", "=":
		if n := slices.IndexFunc(delaySteps, func(d time.Duration) bool { return d > m.delay }); n >= 0 {
			m.setDelay(delaySteps[n])
		}
	case "-":
		for _, d := range slices.Backward(delaySteps) {
			if d < m.delay {
				m.setDelay(d)
				break
			}
		}
	case "space", "enter":
		m.setDelay(m.delay)
	case "down", "j":
		m.offset++
	case "up", "k":
		m.offset--
	case "pgdown":
		m.offset += max(m.height-topHeadLines, 1)
	case "pgup":
		m.offset -= max(m.height-topHeadLines, 1)
	case "home", "g":
		m.offset = 0
	}
	m.offset = max(m.offset, 0)
	return false
}

func (m *topModel) show(v topView) {
	m.view, m.offset = v, 0
	if !slices.Contains(topOrders(v), m.by) {
		m.by = byIO
	}
}

// setDelay tells who polls, which then polls at once.
func (m *topModel) setDelay(d time.Duration) {
	m.delay = d
	select {
	case <-m.delays: // one that was not heard yet
	default:
	}
	m.delays <- d
}

// topHelp is what ? shows.
const topHelp = `l  logical units     t  sessions (I_T nexuses)     i  initiators
s  sort by the next: commands a second, bytes a second, latency, queue
r  reverse the order        b  sizes as numbers of bytes, or not
+  - less, more often       space  now
up down pgup pgdn home      other rows
?  this                     q  end

WAIT   mean time of commands until they are started
DISK   mean time in the backing store; 99%: what 99 of 100 did not exceed
QUEUE  commands under way    ERR/s  commands that the backing store has failed

Press any key.`

// topHeadLines are the lines above the rows: two of the daemon, an empty one, the columns' heads.
const topHeadLines = 4

const reverseVideo, plainVideo = "\x1b[7m", "\x1b[m"

// page lays out everything in a width and a height; 0 is for paper, which has any.
func (m *topModel) page(width, height int) []string {
	before := m.before
	if before == nil {
		before = m.now
	}
	rows, sum := topRows(m.view, before, m.now)
	sortTop(rows, m.by, m.reverse)
	lines := []string{m.headLine(), m.sumLine(len(rows), sum), ""}
	if m.help {
		lines = append(lines, strings.Split(topHelp, "\n")...)
		return fit(lines, width, height)
	}
	shown := table(topColumns(m.view), rows, m.raw, width)
	if height > 0 {
		m.offset = max(min(m.offset, len(rows)-max(height-topHeadLines, 1)), 0)
		shown[0] = reverseVideo + shown[0] + strings.Repeat(" ", max(width-ansi.StringWidth(shown[0]), 0)) + plainVideo
		shown = slices.Delete(shown, 1, 1+m.offset)
	}
	return fit(append(lines, shown...), width, height)
}

// fit cuts lines to a width and a height.
func fit(lines []string, width, height int) []string {
	if height > 0 && len(lines) > height {
		lines = lines[:height]
	}
	for i := range lines {
		if width > 0 {
			lines[i] = ansi.Truncate(lines[i], width, "")
		}
	}
	return lines
}

// headLine is about the daemon.
func (m *topModel) headLine() string {
	st := m.now.st
	text := fmt.Sprintf("gotgtd %s  generation %d, up %s  %d targets, %d sessions  memory %s of %s",
		st.Version, st.Generation, age(m.now.at.Sub(st.Started)), len(st.Targets), len(st.Sessions), m.raw.cell(st.Memory), m.raw.cell(st.MemoryLimit))
	for _, u := range slices.Backward(st.Upgrades) {
		if u.Error == "" {
			text += fmt.Sprintf("  last pause %v", u.Pause.Round(100*time.Microsecond))
			break
		}
	}
	return text
}

// sumLine is about all rows.
func (m *topModel) sumLine(n int, sum topRates) string {
	if m.err != nil {
		return fmt.Sprintf("no answer for %s, and asked again: %s", age(time.Since(m.failed)), printable(m.err.Error(), ""))
	}
	order := ""
	if m.reverse {
		order = ", lowest first"
	}
	return fmt.Sprintf("%d %s by %s%s, every %v  together R/s %s  W/s %s  READ/s %s  WRITTEN/s %s", n, m.view, m.by, order, m.delay,
		perSecond(sum.reads), perSecond(sum.writes), m.raw.cell(int64(sum.readBytes)), m.raw.cell(int64(sum.writtenBytes)))
}
