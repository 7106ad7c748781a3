// SPDX-License-Identifier: Apache-2.0

package config

import (
	"iter"
	"reflect"
	"slices"
	"strings"
	"time"
)

// A fileField is a field of a struct that a file has. The tag yaml says how: its key, then
// "omitempty" for one that is left out when it has no value, and "size" or "hex" for how it is
// written. A field without a key is in no file. The fields of an embedded struct with the option
// "inline" are among those of the one around it, so that the engine's own types stand in a file
// without being copied.
type fileField struct {
	key   string
	value reflect.Value // of a type that reads and writes it as the file has it
	omit  bool          // it is left out
}

// fileFields are the fields of the struct v that a file has, in their order.
func fileFields(v reflect.Value) iter.Seq[fileField] {
	return func(yield func(fileField) bool) { eachField(v, yield) }
}

func eachField(v reflect.Value, yield func(fileField) bool) bool {
	for i := range v.NumField() {
		key, rest, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		options := strings.Split(rest, ",")
		switch {
		case slices.Contains(options, "inline"):
			if !eachField(v.Field(i), yield) {
				return false
			}
		case key != "" && key != "-":
			value := asWritten(v.Field(i), options)
			if !yield(fileField{key, value, slices.Contains(options, "omitempty") && empty(value)}) {
				return false
			}
		}
	}
	return true
}

// asWritten is a field in the type that reads and writes it as a file has it.
func asWritten(v reflect.Value, options []string) reflect.Value {
	switch {
	case v.Type() == reflect.TypeFor[time.Duration]():
		return viewAs[fileDuration](v)
	case slices.Contains(options, "size") && v.Kind() == reflect.Int:
		return viewAs[fileLength](v)
	case slices.Contains(options, "size"):
		return viewAs[fileSize](v)
	case slices.Contains(options, "hex") && v.Kind() == reflect.Slice:
		return viewAs[fileBytes](v)
	case slices.Contains(options, "hex"):
		return viewAs[fileHex](v)
	}
	return v
}

// viewAs is v as a T, which is the same in memory. Setting it sets v, if v can be set.
func viewAs[T any](v reflect.Value) reflect.Value {
	if v.CanAddr() {
		return v.Addr().Convert(reflect.TypeFor[*T]()).Elem()
	}
	return v.Convert(reflect.TypeFor[T]())
}

// fieldByKey finds the field of the struct v that has the key, or the keys that there are.
func fieldByKey(v reflect.Value, key string) (field reflect.Value, known []string) {
	for f := range fileFields(v) {
		if f.key == key {
			return f.value, nil
		}
		known = append(known, f.key)
	}
	slices.Sort(known)
	return reflect.Value{}, known
}

func empty(v reflect.Value) bool {
	return v.IsZero() || v.Kind() == reflect.Map && v.Len() == 0 || v.Kind() == reflect.Slice && v.Len() == 0
}
