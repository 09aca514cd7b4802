package wire

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestWhatIsNotKnownOfAnObjectStaysAsItWasWritten(t *testing.T) {
	text := `{"a":1,"ünknown":{"x":[1.50,null,{"y":"\u0041"}]},"b":null,"a":2}`
	o, err := ParseObject(text)
	if err != nil || o.Encode() != text {
		t.Fatalf("%s %v", o.Encode(), err)
	}
	if o.Text("a") != "2" || o.Text("b") != "" || o.Text("c") != "" {
		t.Errorf("%q %q %q", o.Text("a"), o.Text("b"), o.Text("c"))
	}
	o.Set("a", `"new"`)
	o.Set("b", "")
	if want := `{"ünknown":{"x":[1.50,null,{"y":"\u0041"}]},"a":"new"}`; o.Encode() != want {
		t.Errorf("%s", o.Encode())
	}
}

func TestMembersAreReadByTheirKind(t *testing.T) {
	o, err := ParseObject(`{"s":"a\nb","t":true,"n":4294967295,"l":["x",1],"o":{"p":null},"os":[{"q":1},{}],"ns":[1,2]}`)
	if err != nil {
		t.Fatal(err)
	}
	s, e1 := o.String("s")
	is, e2 := o.Bool("t")
	n, e3 := o.Uint32("n")
	l, e4 := o.List("l")
	inner, e5 := o.Object("o")
	objects, e6 := o.Objects("os")
	numbers, e7 := o.Numbers("ns")
	for _, err := range []error{e1, e2, e3, e4, e5, e6, e7} {
		if err != nil {
			t.Error(err)
		}
	}
	if s != "a\nb" || !is || n != 4294967295 || !reflect.DeepEqual(l, []string{`"x"`, "1"}) || len(inner) != 1 ||
		EncodeList(objects) != `[{"q":1},{}]` || !reflect.DeepEqual(numbers, []uint32{1, 2}) {
		t.Error(s, is, n, l, inner, objects, numbers)
	}
	for _, name := range []string{"t", "l", "o"} {
		if _, err := o.String(name); CodeOf(err) != InvalidJSON || !strings.HasPrefix(err.Error(), name+": invalid JSON") {
			t.Errorf("%s as a string: %v", name, err)
		}
	}
	if none, err := o.Object("none"); len(none) != 0 || err != nil {
		t.Error(none, err)
	}
}

func TestADocumentSaysItsVersionAndSpecification(t *testing.T) {
	d, err := ParseDocument(`{"SchemaVersion":{"Major":2,"Minor":1},"OciBundlePath":"/b","OciSpecification":{"a":1},"ScratchDirPath":"/s"}`)
	if err != nil || d.Bundle != "/b" || d.Spec.Encode() != `{"a":1}` {
		t.Errorf("%+v %v", d, err)
	}
	for text, code := range map[string]HResult{
		`{"OciSpecification":{}}`:                                                  InvalidJSON, // schema version 0.0
		`{"SchemaVersion":{"Major":2},"OciSpecification":{}}`:                      InvalidJSON,
		`{"SchemaVersion":{"Major":1,"Minor":9},"OciSpecification":{}}`:            InvalidJSON,
		`{"SchemaVersion":{"Major":2,"Minor":1}}`:                                  InvalidArg,
		`{"SchemaVersion":{"Major":2,"Minor":1},"OciSpecification":[]}`:            InvalidJSON,
		`{"SchemaVersion":{"Major":2,"Minor":1},"OciSpecification":{"a"}}`:         InvalidJSON,
		`{"SchemaVersion":{"Major":2,"Minor":1},"OciBundlePath":1}`:                InvalidJSON,
		`{"SchemaVersion":{"Major":3,"Minor":0},"OciSpecification":{},"x":{"y":]}`: InvalidJSON,
	} {
		if _, err := ParseDocument(text); CodeOf(err) != code || err == nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestAnIDIsANameOfAFolder(t *testing.T) {
	for id, want := range map[string]bool{
		"c": true, "a1b2-c3_d4.e+F": true, strings.Repeat("x", 128): true, "...": true,
		"": false, ".": false, "..": false, "a/b": false, "a b": false, "a\x00": false, "ü": false, "@": false, "[": false, strings.Repeat("x", 129): false,
	} {
		if IsContainerID(id) != want {
			t.Errorf("%q: %v", id, !want)
		}
	}
}

func FuzzObject(f *testing.F) {
	f.Add(`{"a":1,"b":{"c":[]}}`, "a")
	f.Add(`{"a":"\ud800","a":null}`, "a")
	f.Fuzz(func(t *testing.T, text, name string) {
		o, err := ParseObject(text)
		if err != nil {
			return
		}
		if text != "" && !json.Valid([]byte(text)) || !json.Valid([]byte(o.Encode())) {
			t.Fatalf("%q was read as %q", text, o.Encode())
		}
		_, _ = o.String(name)
		_, _ = o.Objects(name)
		_, _ = o.Numbers(name)
		again, err := ParseObject(o.Encode())
		if err != nil || again.Text(name) != o.Text(name) {
			t.Fatalf("%q, written again, is %q: %v", text, o.Encode(), err)
		}
		o.Set(name, "7")
		if n, err := o.Uint32(name); n != 7 || err != nil {
			t.Fatal(n, err)
		}
	})
}
