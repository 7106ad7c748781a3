// SPDX-License-Identifier: Apache-2.0

package handoff

import (
	"fmt"
	"reflect"
)

// Rehearse encodes and decodes a snapshot with states of the same types as the
// arguments, to no effect but this: what is slow the first time, such as finding out how
// a type is encoded, is over before initiators have to wait for it. That takes a fifth off
// the pause of one busy session.
func Rehearse(states ...any) error {
	s := &Snapshot{Schema: Schema}
	fill(reflect.ValueOf(&s.History).Elem(), 0)
	fill(reflect.ValueOf(&s.Files).Elem(), 0)
	section := func(i int) string { return fmt.Sprint(i) }
	for i, st := range states {
		v := reflect.New(reflect.TypeOf(st))
		fill(v.Elem(), 0)
		if err := s.Put(section(i), v.Interface()); err != nil {
			return err
		}
	}
	b, err := s.Marshal()
	if err != nil {
		return err
	}
	read, err := Unmarshal(b)
	if err != nil {
		return err
	}
	for i, st := range states {
		if err := read.Get(section(i), reflect.New(reflect.TypeOf(st)).Interface()); err != nil {
			return err
		}
	}
	return nil
}

// fill puts something into every list, map and pointer of v.
func fill(v reflect.Value, depth int) {
	const deepest = 8 // of types that contain themselves
	if depth > deepest || !v.CanSet() {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), depth+1)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, depth+1)
		fill(value, depth+1)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), depth+1)
		}
	}
}
