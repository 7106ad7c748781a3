// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"fmt"
	"regexp"
	"slices"
)

// What `tgtadm --mode target --op show` and `gotgtd check --print-yaml` have of the
// numbers: of a target its name and TID, of a disk its LUN and path.
var (
	shownNumbers   = regexp.MustCompile(`(?m)^Target (?P<tid>\d+): (?P<target>\S+)$|^ +LUN: (?P<lun>\d+)$|^ +Backing store path: (?P<path>/\S+)$`)
	printedNumbers = regexp.MustCompile(`(?m)^  - name: (?P<target>\S+)$|^    tid: (?P<tid>\d+)$|^ +- lun: (?P<lun>\d+)$|^ +path: (?P<path>/\S+)$`)
)

// numbersIn reads numbers from a program's output: "TARGET is TID" and "TARGET LUN is PATH".
func numbersIn(text string, form *regexp.Regexp) []string {
	var numbers []string
	last := make(map[string]string)
	for _, match := range form.FindAllStringSubmatch(text, -1) {
		for i, name := range form.SubexpNames() {
			if name == "" || match[i] == "" {
				continue
			}
			last[name] = match[i]
			if name == "path" {
				numbers = append(numbers, fmt.Sprintf("%s %s is %s", last["target"], last["lun"], last["path"]))
			}
		}
		if last["target"] != "" && last["tid"] != "" {
			numbers = append(numbers, fmt.Sprintf("%s is %s", last["target"], last["tid"]))
			delete(last, "tid")
		}
	}
	slices.Sort(numbers)
	return numbers
}
