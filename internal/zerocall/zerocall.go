// SPDX-License-Identifier: Apache-2.0

// Package zerocall calls everything that a package exports with zero arguments, for
// tests: a program that embeds a package may call it so, and gets an error and no crash.
package zerocall

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// Package calls each of the functions and each exported method of the values with zero
// arguments. It fails the test for one that panics or takes longer than 10 s, and for what
// the package in the folder of the test exports and nobody has called. A function that has
// to panic is among the functions as nil.
func Package(t *testing.T, functions map[string]any, values ...any) {
	t.Helper()
	missing := exported(t)
	for name, f := range functions {
		if f != nil {
			call(t, name, reflect.ValueOf(f))
		}
		delete(missing, name)
	}
	for _, v := range values {
		methods(t, v, missing)
	}
	for name := range missing {
		t.Errorf("%s is exported, and not called", name)
	}
}

// methods calls those of a value, but for Close, which comes last.
func methods(t *testing.T, v any, missing map[string]bool) {
	value := reflect.ValueOf(v)
	typ := value.Type()
	name := typ.Name()
	if typ.Kind() == reflect.Pointer {
		name = typ.Elem().Name()
	}
	var last []int
	run := func(i int) {
		method := name + "." + typ.Method(i).Name
		call(t, method, value.Method(i))
		delete(missing, method)
	}
	for i := range typ.NumMethod() {
		switch typ.Method(i).Name {
		case "Close", "Shutdown", "Retire", "Abandon":
			last = append(last, i)
		default:
			run(i)
			if _, ok := typ.MethodByName("Thaw"); ok && typ.Method(i).Name == "Freeze" {
				call(t, name+".Thaw", value.MethodByName("Thaw")) // or the rest would wait
			}
		}
	}
	for _, i := range last {
		run(i)
	}
}

// call calls a function with zero arguments, and a context that ends soon.
func call(t *testing.T, name string, f reflect.Value) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	args := make([]reflect.Value, 0, f.Type().NumIn())
	for i := range f.Type().NumIn() {
		in := f.Type().In(i)
		switch {
		case in == reflect.TypeFor[context.Context]():
			args = append(args, reflect.ValueOf(ctx))
		case f.Type().IsVariadic() && i == f.Type().NumIn()-1:
		default:
			args = append(args, reflect.Zero(in))
		}
	}
	failure := make(chan any, 1)
	go func() {
		defer func() { failure <- recover() }()
		f.Call(args)
	}()
	select {
	case p := <-failure:
		if p != nil {
			t.Errorf("%s with zero arguments: %v", name, p)
		}
	case <-time.After(10 * time.Second):
		t.Errorf("%s with zero arguments does not return", name)
	}
}

// exported returns the functions, and the methods of exported types as TYPE.METHOD, of
// the package in the current folder.
func exported(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !fn.Name.IsExported() {
				continue
			}
			if name := receiver(fn); name == "" || ast.IsExported(name) {
				names[strings.TrimPrefix(name+"."+fn.Name.Name, ".")] = true
			}
		}
	}
	return names
}

// receiver returns the name of a method's type, "" for a function.
func receiver(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return ""
	}
	t := f.Recv.List[0].Type
	if p, ok := t.(*ast.StarExpr); ok {
		t = p.X
	}
	if id, ok := t.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}
