package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

var shellWords = map[string][]string{
	"":                             nil,
	"  \t\n ":                      nil,
	"ls":                           {"ls"},
	"ls -l  /tmp":                  {"ls", "-l", "/tmp"},
	`sh -c 'exit 7'`:               {"sh", "-c", "exit 7"},
	`a "b c" d`:                    {"a", "b c", "d"},
	`a""b ''`:                      {"ab", ""},
	`"$HOME" '$HOME' $HOME`:        {"$HOME", "$HOME", "$HOME"},
	`"\$ \" \\ \` + "`" + ` \n"`:   {"$ \" \\ ` \\n"},
	`a\ b \'c\"`:                   {"a b", `'c"`},
	"one\\\ntwo \"three\\\nfour\"": {"onetwo", "threefour"},
	`x"y"'z'\w`:                    {"xyzw"},
}

func TestShellWordsAreSplitAsAShellDoes(t *testing.T) {
	for line, want := range shellWords {
		if got, ok := SplitWords(line); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %q %v, want %q", line, got, ok, want)
		}
	}
	for _, line := range []string{`'`, `a "b`, `a 'b" c`, `a\`, `"a\"`} {
		if got, ok := SplitWords(line); ok {
			t.Errorf("%q: %q, want a refusal", line, got)
		}
	}
}

var jsonTexts = []string{
	`{}`, `null`, ` {"CommandArgs" : [ "a" , "b\u0000\ud83d\ude00\ud83dx" ] } `, `{"Environment":{"A":"1","B":"2"}}`,
	`{"ConsoleSize":[24,80],"EmulateConsole":true,"Other":{"a":[1,-2.5e+10,null,true,"x"]}}`,
	`{"User":null,"CommandArgs":null,"ConsoleSize":null,"Environment":null,"EmulateConsole":null}`,
	`{"CommandLine":"\"\\\/\b\f\n\r\t"}`, `{"CommandArgs":[null]}`, `{"ConsoleSize":[4294967295]}`,
	// and what is none, or not of our types
	``, `{`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `[]`, `{} x`, `{"User":"` + "\n" + `"}`, `{"User":"\x"}`, `{"User":"\u12"}`, `{"User":1}`,
	`{"ConsoleSize":[1.0]}`, `{"ConsoleSize":[-1]}`, `{"ConsoleSize":[4294967296]}`, `{"ConsoleSize":[01]}`, `{"a":01}`, `{"a":1.}`, `{"a":.5}`,
	`{"a":1e}`, `{"a":+1}`, `{"a":tru}`, `{"a":nul}`, `{"EmulateConsole":1}`, `{"CommandArgs":{}}`, `{"CommandArgs":["a",]}`, `{"User":"a`,
	`{"Environment":{"A":1}}`, `{'a':1}`, `{"a":"` + "\x7f" + `"}`, `nullx`, `{"User":nullx}`, `{"a":-}`,
}

func TestJSONIsReadAsTheStandardLibraryDoes(t *testing.T) {
	refused := 0
	for _, text := range jsonTexts {
		_, err := ParseParameters(text)
		var want reference
		if wantErr := json.Unmarshal([]byte(text), &want); (err == nil) != (wantErr == nil) {
			t.Errorf("%s: %v, the standard library says %v", text, err, wantErr)
		}
		if err != nil {
			refused++
			if CodeOf(err) != InvalidJSON {
				t.Errorf("%s: %v has HRESULT %#x", text, err, CodeOf(err))
			}
		}
	}
	if refused < 20 {
		t.Errorf("only %d texts were refused", refused)
	}
}

func TestJSONThatWouldNestWithoutEndIsRefused(t *testing.T) {
	for _, text := range []string{strings.Repeat(`{"a":`, 30_000), strings.Repeat("[", 60_000), `{"a":` + strings.Repeat("[", 60_000)} {
		if _, err := ParseParameters(text); CodeOf(err) != InvalidJSON {
			t.Errorf("%.20s...: %v", text, err)
		}
	}
}

func TestJSONThatIsNotUTF8IsRefused(t *testing.T) {
	if _, err := ParseRequest([]byte("{\"ContainerId\":\"\xff\"}")); CodeOf(err) != InvalidJSON {
		t.Errorf("%v", err)
	}
}

func TestParametersAreRead(t *testing.T) {
	got, err := ParseParameters(`{"CommandArgs":["a","b c"],"User":"1:2","WorkingDirectory":"/w","Environment":{"B":"2","A":"=1"},
		"EmulateConsole":true,"CreateStdInPipe":true,"CreateStdOutPipe":true,"CreateStdErrPipe":true,"ConsoleSize":[24,80],"X":[{}]}`)
	want := Parameters{CommandArgs: []string{"a", "b c"}, User: "1:2", WorkingDirectory: "/w", Environment: []string{"B=2", "A==1"},
		EmulateConsole: true, CreateStdInPipe: true, CreateStdOutPipe: true, CreateStdErrPipe: true, ConsoleSize: []uint32{24, 80}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v", got, err)
	}
}

func TestRequestsAreRead(t *testing.T) {
	execute, err := ParseExecute([]byte(`{"ContainerId":"c","ActivityId":"a","Settings":{"ProcessParameters":"{}",
		"VsockStdioRelaySettings":{"StdIn":1,"StdOut":2,"StdErr":4294967295}}}` + "\n"))
	if want := (Execute{Request{"c", "a"}, Stdio{1, 2, 4294967295}, "{}"}); err != nil || execute != want {
		t.Errorf("%+v %v", execute, err)
	}
	about, err := ParseProcessRequest([]byte(`{"ProcessId":7,"TimeoutInMs":4294967295,"Options":{"Signal":15,"Group":true},"Height":24,"Width":80}`))
	if want := (ProcessRequest{Request{}, 7, NoTimeout, 15, true, 24, 80}); err != nil || about != want {
		t.Errorf("%+v %v", about, err)
	}
	offer, err := ParseNegotiate([]byte(`{"MinimumVersion":4,"MaximumVersion":5}`))
	if want := (Negotiate{Request{}, 4, 5}); err != nil || offer != want {
		t.Errorf("%+v %v", offer, err)
	}
}

func TestHResultsAreFoundThroughEveryWrapping(t *testing.T) {
	inner := &Error{Code: NotFound, Text: "inner"}
	for _, err := range []error{
		inner, fmt.Errorf("outer: %w", inner), fmt.Errorf("a: %w", fmt.Errorf("b: %w", inner)), failure{inner},
	} {
		if CodeOf(err) != NotFound {
			t.Errorf("%v: %#x", err, CodeOf(err))
		}
	}
	if CodeOf(errors.New("plain")) != Fail {
		t.Error("an error without HRESULT must be Fail")
	}
}

type failure struct{ why error }

func (f failure) Error() string { return "failure: " + f.why.Error() }
func (f failure) Unwrap() error { return f.why }

func TestResponsesAreTheGoldenOnes(t *testing.T) {
	golden := map[string]string{}
	for _, v := range vectors(t, "frames.json") {
		for _, e := range v.Events {
			golden[fmt.Sprintf("%08x", e.Type)+string(unhex(t, e.Body))] = v.Name
		}
	}
	for _, c := range []struct {
		kind MessageType
		s    Response
	}{
		{NegotiateProtocol, Response{Negotiate: true}},
		{ExecuteProcess, Response{Member: "ProcessId", Number: 101}},
		{WaitForProcess, Response{Member: "ExitCode", Number: 7}},
		{SignalProcess, Response{Err: &Error{Code: NotFound, Text: "no such process: 101"}}},
		{0x10100101, Response{Err: &Error{Code: NotImpl, Text: "bridge: function not supported, header type: 0x10100101"}}},
	} {
		if body := AppendResponse(nil, c.s, NullGUID); golden[fmt.Sprintf("%08x", uint32(c.kind.Response()))+string(body)] == "" {
			t.Errorf("%#x: %s is no golden response", uint32(c.kind), body)
		}
	}
}

func TestLongErrorsFitIntoAFrame(t *testing.T) {
	for _, text := range []string{strings.Repeat("x", 100_000), strings.Repeat("\x01", 100_000), strings.Repeat("\u20ac", 30_000)} {
		body := AppendResponse(nil, Response{Err: &Error{Code: Fail, Text: text}}, NullGUID)
		if FrameHeaderSize+len(body) > 60*1024 || !json.Valid(body) {
			t.Errorf("%d bytes, valid %v", len(body), json.Valid(body))
		}
	}
}

func TestAnActivityTooLongToRepeatIsRefused(t *testing.T) {
	q, err := ParseRequest([]byte(`{"ActivityId":"` + strings.Repeat("a", 65) + `"}`))
	if CodeOf(err) != InvalidJSON || q.ActivityID != "" {
		t.Errorf("%q %v", q.ActivityID, err)
	}
}
