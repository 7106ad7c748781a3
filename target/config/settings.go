// SPDX-License-Identifier: Apache-2.0

package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"reflect"
	"strings"
)

// Settings are the values of a section of the native format by their keys, as
// in "parameters.queue-depth", without those that are the default. They are for
// telling what has changed, and for printing that.
type Settings map[string]string

// Settings returns what a target has but for its name, its number and its
// logical units. Of a secret there is a fingerprint.
func (t *Target) Settings() Settings {
	w := &yamlWriter{expand: true}
	head := *t
	head.LUNs = nil
	f := w.target(&head)
	f.Name, f.TID = "", 0
	s := Settings{}
	s.add("", reflect.ValueOf(f))
	secrets := t.Auth.Users
	if t.Auth.Outgoing != nil {
		secrets = append(secrets[:len(secrets):len(secrets)], *t.Auth.Outgoing)
	}
	for _, u := range secrets {
		s["secret of "+u.User] = fingerprint(u.Secret)
	}
	return s
}

// Settings returns what a logical unit of a target has but for its number, its
// store and its identity.
func (l *LUN) Settings(target string) Settings {
	w := &yamlWriter{}
	f := w.lun(*l, target)
	f.Number, f.Backend, f.Path, f.Size, f.Create, f.Parameters = nil, "", "", 0, false, nil
	f.SCSIID, f.Serial, f.NAA, f.Vendor, f.Product, f.BlockSize = "", "", "", "", "", 0
	s := Settings{}
	s.add("", reflect.ValueOf(f))
	return s
}

// fingerprint tells secrets apart and says nothing about them to those who do
// not know them anyway.
func fingerprint(s Secret) string {
	sum := sha256.Sum256([]byte("gotgtd secret\x00" + string(s)))
	return "#" + hex.EncodeToString(sum[:4])
}

// add adds the values within v, whose key is at.
func (s Settings) add(at string, v reflect.Value) {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return
		}
		v = v.Elem()
	}
	if t, ok := v.Interface().(texter); ok {
		s[at] = t.text()
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for f := range fileFields(v) {
			if f.key != "secret" && !f.omit {
				s.add(join(at, f.key), f.value)
			}
		}
	case reflect.Slice:
		s.addList(at, v)
	default:
		s[at] = fmt.Sprint(v.Interface())
	}
}

// addList adds a list: a name for each entry that is a struct, or all values
// in one.
func (s Settings) addList(at string, v reflect.Value) {
	var values []string
	for i := range v.Len() {
		elem := v.Index(i)
		if elem.Kind() == reflect.Struct {
			s.add(fmt.Sprintf("%s[%d]", at, i), elem)
			continue
		}
		values = append(values, fmt.Sprint(elem.Interface()))
	}
	if len(values) > 0 {
		s[at] = strings.Join(values, " ")
	}
}
