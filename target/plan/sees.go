// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gotgtd/gotgtd/target/config"
)

// difference lists the settings that differ.
func difference(was, now config.Settings) string {
	keys := maps.Clone(was)
	if keys == nil {
		keys = config.Settings{}
	}
	maps.Copy(keys, now)
	var list []string
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		a, had := was[k]
		b, has := now[k]
		account, isSecret := strings.CutPrefix(k, "secret of ")
		switch {
		case a == b && had == has:
		case strings.HasPrefix(k, "auth.users[") && strings.HasSuffix(k, "].user"): // their order says nothing
		case isSecret && !had:
			list = append(list, "account "+account+" is new")
		case isSecret && !has:
			list = append(list, "account "+account+" is gone")
		case isSecret:
			list = append(list, k+" changes")
		case !had:
			list = append(list, fmt.Sprintf("%s %s", k, b))
		case !has:
			list = append(list, fmt.Sprintf("%s no longer %s", k, a))
		default:
			list = append(list, fmt.Sprintf("%s %s instead of %s", k, b, a))
		}
	}
	return strings.Join(list, ", ")
}

// The settings of a logical unit that initiators are told of by unit attentions.
var (
	inquirySettings = []string{
		"thin", "read-only", "tgt-identification", "rotation-rate", "optimal-transfer-granularity", "optimal-transfer-length", "removable", "revision",
	}
	capacitySettings = []string{"thin", "physical-block-exponent", "lowest-aligned-lba"}
	modeSettings     = []string{"descriptor-sense", "mode-pages"}
)

// sees says what initiators that are logged in see of other settings of a logical unit.
func sees(was, now config.Settings) string {
	differ := func(keys ...string) bool {
		return slices.ContainsFunc(keys, func(k string) bool { return settingDiffers(was, now, k) })
	}
	var told, list []string
	if differ(modeSettings...) || writeThrough(was) != writeThrough(now) {
		told = append(told, "MODE PARAMETERS CHANGED")
	}
	if now["removable"] != "true" { // of a removable medium nothing is told: Linux would take it for another one
		if differ(inquirySettings...) {
			told = append(told, "INQUIRY DATA HAS CHANGED")
		}
		if differ(capacitySettings...) {
			told = append(told, "CAPACITY DATA HAS CHANGED")
		}
	}
	if len(told) > 0 {
		list = append(list, strings.Join(told, " and "))
	}
	if len(told) > 0 && differ("thin", "read-only") {
		list[0] += " as far as these are others"
	}
	if differ("thin") && now["thin"] == "false" {
		list = append(list, "UNMAP is refused from now on")
	}
	if differ("read-only") && now["read-only"] == "true" {
		list = append(list, "writes end with WRITE PROTECTED from now on")
	}
	if now["offline"] == "true" {
		return strings.Join(append(list, "NOT READY while it is offline"), ", ")
	}
	return strings.Join(append(list, "goes on"), ", ")
}

// writeThrough reports whether settings leave no write cache.
func writeThrough(s config.Settings) bool { return s["write-cache"] == "false" || s["sync"] == "true" }

// settingDiffers reports whether a setting, or one within a list of that name, is another.
func settingDiffers(was, now config.Settings, key string) bool {
	of := func(s config.Settings) config.Settings {
		s = maps.Clone(s)
		maps.DeleteFunc(s, func(k, _ string) bool { return k != key && !strings.HasPrefix(k, key+"[") })
		return s
	}
	return !maps.Equal(of(was), of(now))
}
