// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Editor changes the text of a YAML configuration as a person would: what is
// not concerned stays as it is to the byte, comments, order and line ends
// among it. A comment above what is removed stays; one within it goes. Each
// change is made twice, in the text and in what the text means, and counts
// only if both agree.
type Editor struct {
	name string
	text string // with "\n" alone, without a byte order mark
	crlf bool
	mark bool // begins with a byte order mark
}

// Edit begins to change the text of the configuration file called name.
func Edit(name string, data []byte) (*Editor, error) {
	text := withoutMark(data)
	if format(name, text) != formatYAML {
		return nil, fmt.Errorf("%s is not YAML, and commands change YAML alone: make one of it with `gotgtd config convert %s -o FILE.yaml` and start the daemon with that", name, name)
	}
	e := &Editor{name: name, text: string(text), mark: len(text) < len(data)}
	if n := strings.Count(e.text, "\r\n"); n > 0 {
		if n != strings.Count(e.text, "\n") {
			return nil, fmt.Errorf("%s ends some lines with CR LF and others with LF: make them one", name)
		}
		e.text, e.crlf = strings.ReplaceAll(e.text, "\r\n", "\n"), true
	}
	_, err := e.parse()
	return e, err
}

// Bytes returns the text as it is now.
func (e *Editor) Bytes() []byte {
	text := e.text
	if e.crlf {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	if e.mark {
		text = byteOrderMark + text
	}
	return []byte(text)
}

func (e *Editor) parse() (*fileConfig, error) {
	r := &reader{file: e.name, places: places{}}
	f := new(fileConfig)
	r.read([]byte(e.text), f)
	if len(r.errs) > 0 {
		return nil, r.errs.sorted([]string{e.name})
	}
	return f, nil
}

// change makes a change in the model, then in the text, and compares.
func (e *Editor) change(mutate func(*fileConfig) ([]textChange, error)) error {
	want, err := e.parse()
	if err != nil {
		return err
	}
	changes, err := mutate(want)
	if err != nil {
		return err
	}
	before := e.text
	for _, c := range changes {
		if err == nil {
			e.text, err = c.apply(e.text, reflect.ValueOf(want).Elem())
		}
	}
	if err == nil {
		var got *fileConfig
		if got, err = e.parse(); err == nil && meaning(got) != meaning(want) {
			err = errors.New("the change would not say what it should")
		}
	}
	if err != nil {
		e.text = before
		return fmt.Errorf("%s is written so that a command can't change it (%w): use `gotgtd config edit`", e.name, err)
	}
	return nil
}

// meaning is a text by which two files can be compared.
func meaning(f *fileConfig) string {
	e := &yamlEncoder{}
	e.fields(reflect.ValueOf(f).Elem(), "")
	return e.out.String()
}

// NoTargetError is a target that the text does not have. An included file may have it.
type NoTargetError struct{ Name string }

func (e *NoTargetError) Error() string { return "there is no target " + e.Name + " in this file" }

func (f *fileConfig) target(name string) (int, error) {
	i := slices.IndexFunc(f.Targets, func(t fileTarget) bool { return strings.EqualFold(t.Name, name) })
	if i < 0 {
		return 0, &NoTargetError{name}
	}
	return i, nil
}

func (t *fileTarget) lun(n uint16) (int, error) {
	i := slices.IndexFunc(t.LUNs, func(l fileLUN) bool { return l.Number != nil && *l.Number == n })
	if i < 0 {
		return 0, fmt.Errorf("target %s has no LUN %d in this file", t.Name, n)
	}
	return i, nil
}

// AddTarget adds a target with the given settings, each KEY=VALUE with the
// keys of the file; a dot leads into a section.
func (e *Editor) AddTarget(name string, settings []string) error {
	return e.change(func(f *fileConfig) ([]textChange, error) {
		if _, err := f.target(name); err == nil {
			return nil, fmt.Errorf("target %s is there already", name)
		}
		t := fileTarget{Target: Target{Name: name}}
		if _, err := assign(reflect.ValueOf(&t).Elem(), settings); err != nil {
			return nil, err
		}
		f.Targets = append(f.Targets, t)
		return []textChange{{add, yamlPath{"targets", len(f.Targets) - 1}}}, nil
	})
}

// RemoveTarget removes a target.
func (e *Editor) RemoveTarget(name string) error {
	return e.change(func(f *fileConfig) ([]textChange, error) {
		i, err := f.target(name)
		if err != nil {
			return nil, err
		}
		f.Targets = slices.Delete(f.Targets, i, i+1)
		return []textChange{{remove, yamlPath{"targets", i}}}, nil
	})
}

// SetTarget changes settings of a target; KEY= without a value takes one away.
func (e *Editor) SetTarget(name string, settings []string) error {
	return e.change(func(f *fileConfig) ([]textChange, error) {
		i, err := f.target(name)
		if err != nil {
			return nil, err
		}
		return set(reflect.ValueOf(&f.Targets[i]).Elem(), yamlPath{"targets", i}, settings)
	})
}

// AddLUN adds a logical unit to a target, of the lowest free number from 1 on
// if number is negative, and returns its number.
func (e *Editor) AddLUN(target string, number int, settings []string) (uint16, error) {
	var n uint16
	err := e.change(func(f *fileConfig) ([]textChange, error) {
		i, err := f.target(target)
		if err != nil {
			return nil, err
		}
		t := &f.Targets[i]
		if number < 0 {
			number = 1
			for _, err := t.lun(1); err == nil; _, err = t.lun(uint16(number)) {
				number++
			}
		}
		if n = uint16(number); number > maxLUN {
			return nil, fmt.Errorf("LUN %d is none of 0 to %d", number, maxLUN)
		}
		if _, err := t.lun(n); err == nil {
			return nil, fmt.Errorf("target %s has a LUN %d already", t.Name, n)
		}
		l := fileLUN{Number: &n}
		if _, err := assign(reflect.ValueOf(&l).Elem(), settings); err != nil {
			return nil, err
		}
		t.LUNs = append(t.LUNs, l)
		return []textChange{{add, yamlPath{"targets", i, "luns", len(t.LUNs) - 1}}}, nil
	})
	return n, err
}

// RemoveLUN removes a logical unit.
func (e *Editor) RemoveLUN(target string, number uint16) error {
	return e.change(func(f *fileConfig) ([]textChange, error) {
		i, j, err := f.lun(target, number)
		if err != nil {
			return nil, err
		}
		t := &f.Targets[i]
		t.LUNs = slices.Delete(t.LUNs, j, j+1)
		return []textChange{{remove, yamlPath{"targets", i, "luns", j}}}, nil
	})
}

// SetLUN changes settings of a logical unit; KEY= without a value takes one
// away.
func (e *Editor) SetLUN(target string, number uint16, settings []string) error {
	return e.change(func(f *fileConfig) ([]textChange, error) {
		i, j, err := f.lun(target, number)
		if err != nil {
			return nil, err
		}
		return set(reflect.ValueOf(&f.Targets[i].LUNs[j]).Elem(), yamlPath{"targets", i, "luns", j}, settings)
	})
}

func (f *fileConfig) lun(target string, number uint16) (i, j int, err error) {
	if i, err = f.target(target); err == nil {
		j, err = f.Targets[i].lun(number)
	}
	return i, j, err
}

// section is the auth section of a target, or discovery if target is empty.
func (f *fileConfig) section(target string) (**fileAuth, yamlPath, error) {
	if target == "" {
		return &f.Discovery, yamlPath{"discovery"}, nil
	}
	i, err := f.target(target)
	if err != nil {
		return nil, nil, err
	}
	return &f.Targets[i].Auth, yamlPath{"targets", i, "auth"}, nil
}

// SetUser gives an account of a target, or of discovery if target is empty,
// the secret in a file. With fresh the account is added and must not be there;
// else it must. It returns the secret file that the account had before.
func (e *Editor) SetUser(target, user, secretFile string, fresh, outgoing bool) (old string, err error) {
	err = e.change(func(f *fileConfig) ([]textChange, error) {
		auth, at, err := f.section(target)
		if err != nil {
			return nil, err
		}
		if *auth == nil {
			*auth = new(fileAuth)
		}
		a := *auth
		account := fileAccount{User: user, SecretFile: secretFile}
		if outgoing {
			if a.Outgoing != nil {
				old = a.Outgoing.SecretFile
			}
			if err := expect(a.Outgoing != nil, fresh, "an outgoing account"); err != nil {
				return nil, err
			}
			a.Outgoing = &account
			return []textChange{{put, at.to("outgoing")}}, nil
		}
		i := slices.IndexFunc(a.Users, func(u fileAccount) bool { return u.User == user })
		if err := expect(i >= 0, fresh, fmt.Sprintf("an account %q", user)); err != nil {
			return nil, err
		}
		if i < 0 {
			a.Users = append(a.Users, account)
			return []textChange{{add, at.to("users", len(a.Users)-1)}}, nil
		}
		old = a.Users[i].SecretFile
		a.Users[i] = account
		return []textChange{{remove, at.to("users", i, "secret")}, {put, at.to("users", i, "secret-file")}}, nil
	})
	return old, err
}

// expect is an error if something is there that is to be added, or is not
// there that is to be changed.
func expect(there, fresh bool, what string) error {
	switch {
	case there && fresh:
		return fmt.Errorf("there is %s already", what)
	case !there && !fresh:
		return fmt.Errorf("there is not %s", what)
	}
	return nil
}

// RemoveUser removes an account, the last one only with last, and returns the
// file with its secret.
func (e *Editor) RemoveUser(target, user string, outgoing, last bool) (old string, err error) {
	err = e.change(func(f *fileConfig) ([]textChange, error) {
		auth, at, err := f.section(target)
		if err != nil {
			return nil, err
		}
		a := *auth
		if a == nil {
			a = new(fileAuth)
		}
		if outgoing {
			if a.Outgoing == nil || a.Outgoing.User != user {
				return nil, fmt.Errorf("there is no outgoing account %q", user)
			}
			old, a.Outgoing = a.Outgoing.SecretFile, nil
			prune(auth)
			return []textChange{{remove, at.to("outgoing")}}, nil
		}
		i := slices.IndexFunc(a.Users, func(u fileAccount) bool { return u.User == user })
		if i < 0 {
			return nil, fmt.Errorf("there is no account %q", user)
		}
		if len(a.Users) == 1 && !last {
			return nil, fmt.Errorf("%q is the last account: without one nobody needs a secret (--last removes it all the same)", user)
		}
		old = a.Users[i].SecretFile
		a.Users = cut(a.Users, i)
		prune(auth)
		return []textChange{{remove, at.to("users", i)}}, nil
	})
	return old, err
}

// accountPrefix marks an access entry that is an account's name.
const accountPrefix = "account:"

// AddAccess admits initiators to a target, or to one LUN of it if lun is not
// negative. An entry is an address, a network, "ALL", an initiator's name, or
// "account:" and a CHAP name.
func (e *Editor) AddAccess(target string, lun int, entries []string) error {
	return e.access(target, lun, entries, func(list []string, entry string) ([]string, int, error) {
		if slices.Contains(list, entry) {
			return nil, 0, fmt.Errorf("%s is admitted already", entry)
		}
		return append(list, entry), len(list), nil
	}, add)
}

// RemoveAccess takes entries away that AddAccess adds, but for the last: that
// would admit everybody.
func (e *Editor) RemoveAccess(target string, lun int, entries []string) error {
	return e.access(target, lun, entries, func(list []string, entry string) ([]string, int, error) {
		i := slices.Index(list, entry)
		if i < 0 {
			return nil, 0, fmt.Errorf("%s is not in the access list", entry)
		}
		return cut(list, i), i, nil
	}, remove)
}

type alterList func(list []string, entry string) (altered []string, at int, err error)

func (e *Editor) access(target string, lun int, entries []string, alter alterList, what textAction) error {
	for _, entry := range entries {
		err := e.change(func(f *fileConfig) ([]textChange, error) {
			section, at, err := f.access(target, lun)
			if err != nil {
				return nil, err
			}
			if *section == nil {
				*section = new(fileAccess)
			}
			a := *section
			list, key, text := a.list(entry)
			var i int
			if *list, i, err = alter(*list, text); err != nil {
				return nil, err
			}
			if len(a.Initiators)+len(a.Addresses)+len(a.Accounts) == 0 && entry != "ALL" {
				return nil, fmt.Errorf("%s is the last entry, and without one everybody is admitted: add another first, or ALL", entry)
			}
			prune(section)
			return []textChange{{what, at.to(key, i)}}, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// access is the access section of a target, or of one of its logical units.
func (f *fileConfig) access(target string, lun int) (**fileAccess, yamlPath, error) {
	if lun < 0 {
		i, err := f.target(target)
		if err != nil {
			return nil, nil, err
		}
		return &f.Targets[i].Access, yamlPath{"targets", i, "access"}, nil
	}
	i, j, err := f.lun(target, uint16(min(lun, maxLUN)))
	if err != nil {
		return nil, nil, err
	}
	return &f.Targets[i].LUNs[j].Access, yamlPath{"targets", i, "luns", j, "access"}, nil
}

// list is the list that an entry belongs to, its key, and the entry as it
// stands there.
func (a *fileAccess) list(entry string) (list *[]string, key, text string) {
	if account, ok := strings.CutPrefix(entry, accountPrefix); ok {
		return &a.Accounts, "accounts", account
	}
	if new(Access).add(entry) == nil {
		return &a.Addresses, "addresses", entry
	}
	return &a.Initiators, "initiators", entry
}

// cut removes an element, and the list with the last one.
func cut[T any](list []T, i int) []T {
	if len(list) == 1 {
		return nil
	}
	return slices.Delete(list, i, i+1)
}

// prune removes a section with nothing in it.
func prune[T any](section **T) {
	if *section != nil && reflect.ValueOf(**section).IsZero() {
		*section = nil
	}
}

// set assigns settings to the struct v at a path, and returns what that
// changes in the text.
func set(v reflect.Value, at yamlPath, settings []string) ([]textChange, error) {
	keys, err := assign(v, settings)
	if err != nil {
		return nil, err
	}
	var changes []textChange
	for i, key := range keys {
		to := at
		for part := range strings.SplitSeq(key, ".") {
			to = to.to(part)
		}
		if strings.HasSuffix(settings[i], "=") {
			changes = append(changes, textChange{remove, to})
		} else {
			changes = append(changes, textChange{put, to})
		}
	}
	return changes, nil
}

// SettingError is a setting that can't be what was given for it, KEY=VALUE.
type SettingError struct{ Err error }

func (e *SettingError) Error() string { return e.Err.Error() }
func (e *SettingError) Unwrap() error { return e.Err }

// assign assigns settings, each KEY=VALUE, to the struct v, and returns the
// keys.
func assign(v reflect.Value, settings []string) ([]string, error) {
	var keys []string
	for _, s := range settings {
		key, value, found := strings.Cut(s, "=")
		if !found {
			return nil, &SettingError{fmt.Errorf("%q is not KEY=VALUE", s)}
		}
		if slices.Contains([]string{"name", "lun", "luns"}, key) {
			return nil, &SettingError{fmt.Errorf("%s can't be set: remove it and add another", key)}
		}
		if err := assignOne(v, strings.Split(key, "."), value); err != nil {
			return nil, &SettingError{fmt.Errorf("%s: %w", key, err)}
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func assignOne(v reflect.Value, key []string, value string) error {
	field, known := fieldByKey(v, key[0])
	if !field.IsValid() {
		return fmt.Errorf("unknown key%s, expected one of %s", didYouMean(key[0], known), strings.Join(known, ", "))
	}
	if len(key) == 1 {
		return assignText(field, value)
	}
	section := field
	if field.Kind() == reflect.Pointer {
		if field.IsNil() {
			field.Set(reflect.New(field.Type().Elem()))
		}
		section = field.Elem()
	}
	if section.Kind() != reflect.Struct {
		return fmt.Errorf("%s has no keys of its own", key[0])
	}
	err := assignOne(section, key[1:], value)
	if section.IsZero() && field.Kind() == reflect.Pointer {
		field.SetZero()
	}
	return err
}

// assignText gives a field the value that text means; no text: none.
func assignText(field reflect.Value, text string) error {
	if text == "" {
		field.SetZero()
		return nil
	}
	if s, ok := field.Addr().Interface().(scalar); ok {
		return s.parse(text, true)
	}
	var err error
	switch field.Kind() {
	case reflect.Pointer:
		v := reflect.New(field.Type().Elem())
		if err = assignText(v.Elem(), text); err == nil {
			field.Set(v)
		}
	case reflect.String:
		field.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil && !slices.Contains(truthWords, text) {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		field.SetBool(b || text == "yes" || text == "on")
	case reflect.Slice:
		return assignList(field, text)
	case reflect.Struct, reflect.Map:
		return errors.New("is a section: name a key in it, as in SECTION.KEY=VALUE")
	default:
		return assignNumber(field, text)
	}
	return err
}

func assignNumber(field reflect.Value, text string) error {
	if field.CanUint() {
		n, err := strconv.ParseUint(text, 10, field.Type().Bits())
		if err != nil {
			return fmt.Errorf("%q is not a number that is possible here", text)
		}
		field.SetUint(n)
		return nil
	}
	n, err := strconv.ParseInt(text, 10, field.Type().Bits())
	if err != nil {
		return fmt.Errorf("%q is not a number that is possible here", text)
	}
	field.SetInt(n)
	return nil
}

func assignList(field reflect.Value, text string) error {
	if field.Type().Elem().Kind() == reflect.Struct {
		return errors.New("is a list of sections: use `gotgtd config edit`")
	}
	parts := strings.Split(text, ",")
	list := reflect.MakeSlice(field.Type(), len(parts), len(parts))
	for i, part := range parts {
		if err := assignText(list.Index(i), strings.TrimSpace(part)); err != nil {
			return err
		}
	}
	field.Set(list)
	return nil
}
