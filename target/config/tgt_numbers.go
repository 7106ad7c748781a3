// SPDX-License-Identifier: Apache-2.0

package config

import "slices"

// number returns the numbers of a target's logical units, and whether any of them comes from
// the order of the stores alone. What the file says comes first; directives set it later. Then each
// disk keeps the number that it was given, whatever its path is now; then one with the path of
// another keeps that one's. Whatever is left gets the lowest number that is free, from 1.
func (b *tgtBuilder) number(target string, stores []*tgtStore, shared []tgtDirective) (numbers []uint16, byOrder bool) {
	numbers = make([]uint16, len(stores))
	isLUN := func(d tgtDirective) bool { return d.name == "lun" }
	if slices.ContainsFunc(shared, isLUN) {
		return numbers, false
	}
	open, taken := []int{}, map[uint16]bool{}
	for i, s := range stores {
		given := slices.IndexFunc(s.directives, isLUN)
		if given < 0 {
			open = append(open, i)
		} else if n, err := parseLUN(s.directives[given].value); err == nil {
			taken[n] = true
		}
	}
	for _, known := range []func(target, path string) (uint16, bool){b.known.storeLUN, b.known.pathLUN} {
		open = slices.DeleteFunc(open, func(i int) bool {
			n, ok := known(target, stores[i].path())
			if !ok || taken[n] {
				return false
			}
			numbers[i], taken[n] = n, true
			return true
		})
	}
	for n := range b.known.takenLUNs(target) { // of what is gone
		taken[n] = true
	}
	next := uint16(1)
	for _, i := range open {
		for taken[next] {
			next++
		}
		numbers[i], taken[next] = next, true
	}
	return numbers, len(open) > 0
}
