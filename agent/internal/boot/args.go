// Package boot is what the agent does as PID 1 before it serves the host: its command line, the machine's set-up, the
// carrier (protocol/SPEC.md sections 1 and 7).
package boot

import (
	"path"
	"strconv"
	"strings"

	"utilityvm/agent/internal/logs"
	"utilityvm/agent/internal/session"
	"utilityvm/agent/wire"
)

// Args is the agent's command line.
type Args struct {
	EntropyPort uint32
	LogPort     uint32
	Shell       bool // a shell on the console as well
	Level       logs.Level
	TextLog     bool
	CorePattern string
	Program     *session.Program // runs instead of our /bin/gcs
}

// ArgsError says which word of the command line cannot be carried out.
type ArgsError string

func (e ArgsError) Error() string { return string(e) }

const vsockexec, ourGCS = "/bin/vsockexec", "/bin/gcs"

// ParseArgs reads the command line without the agent's own name, in the form of the original's three programs: init with
// its options, vsockexec with its options, gcs with its options. The agent is all three, or the first two with another program.
func ParseArgs(words []string) (*Args, error) {
	a := &Args{Level: logs.Info}
	words, err := a.options(words, map[string]func(string) error{"e": setPort(&a.EntropyPort)})
	if err != nil {
		return nil, err
	}
	if len(words) == 3 && path.Base(words[0]) == "sh" && words[1] == "-c" {
		line, ok := cutShell(words[2])
		if !ok {
			return nil, ArgsError("the shell's command must end with & exec sh: " + words[2])
		}
		a.Shell = true
		words, _ = wire.SplitWords(line)
	}
	if len(words) == 0 || words[0] != vsockexec {
		return nil, ArgsError("expected " + vsockexec + " in: " + strings.Join(words, " "))
	}
	var ports [3]uint32
	streams := map[string]func(string) error{"i": setPort(&ports[0]), "o": setPort(&ports[1]), "e": setPort(&ports[2])}
	if words, err = a.options(words[1:], streams); err != nil {
		return nil, err
	}
	if len(words) == 0 {
		return nil, ArgsError("there is no program after " + vsockexec)
	}
	if words[0] != ourGCS {
		return a, a.setProgram(words, ports)
	}
	if ports[0] != 0 {
		return nil, ArgsError(ourGCS + " reads no standard input: -i is for other programs")
	}
	if a.LogPort = ports[2]; a.LogPort == 0 {
		a.LogPort = ports[1]
	}
	if words, err = a.options(words[1:], a.gcsOptions()); err == nil && len(words) > 0 {
		err = ArgsError("unexpected word " + words[0])
	}
	return a, err
}

func (a *Args) setProgram(words []string, ports [3]uint32) error {
	if !strings.HasPrefix(words[0], "/") {
		return ArgsError("the program after " + vsockexec + " must be an absolute path, not " + words[0])
	}
	a.Program = &session.Program{Argv: words, Ports: ports}
	return nil
}

// cutShell removes what asks for the shell.
func cutShell(line string) (string, bool) {
	line, ok := cutSuffix(strings.TrimSpace(line), "exec sh")
	if !ok {
		return "", false
	}
	return cutSuffix(strings.TrimSpace(line), "&")
}

// gcsOptions are those of the original's agent that have a meaning here.
func (a *Args) gcsOptions() map[string]func(string) error {
	return map[string]func(string) error{
		"v4":                 flag(true), // the only version there is
		"disable-time-sync":  flag(true), // the agent never sets the clock
		"scrub-logs":         flag(false),
		"log-format":         a.setFormat,
		"loglevel":           a.setLevel,
		"core-dump-location": func(v string) error { a.CorePattern = v; return nil },
	}
}

func (a *Args) setFormat(value string) error {
	a.TextLog = value == "text"
	if value != "text" && value != "json" {
		return ArgsError("unknown format " + value)
	}
	return nil
}

func (a *Args) setLevel(value string) (err error) {
	var ok bool
	if a.Level, ok = logs.ParseLevel(value); !ok {
		return ArgsError("unknown level " + value)
	}
	return nil
}

func setPort(port *uint32) func(string) error {
	return func(value string) error {
		n, err := strconv.ParseUint(value, 0, 32)
		if *port = uint32(n); err != nil || n == 0 {
			return ArgsError("not a port: " + value)
		}
		return nil
	}
}

// flag is a switch that has only one setting here; set is called with "" when no value was given.
func flag(only bool) func(string) error {
	return func(value string) error {
		if on, err := strconv.ParseBool(value); value != "" && (err != nil || on != only) || value == "" && !only {
			return ArgsError("can only be " + strconv.FormatBool(only))
		}
		return nil
	}
}

// switches take no word after them.
var switches = map[string]bool{"v4": true, "disable-time-sync": true, "scrub-logs": true}

// options reads -name value, -name=value and --name from the front of words and returns the rest.
func (a *Args) options(words []string, known map[string]func(string) error) ([]string, error) {
	for len(words) > 0 && strings.HasPrefix(words[0], "-") {
		word := words[0]
		name, value, hasValue := strings.Cut(strings.TrimLeft(word, "-"), "=")
		words = words[1:]
		set := known[name]
		if set == nil {
			return nil, ArgsError("unknown option " + word)
		}
		if !hasValue && !switches[name] {
			if len(words) == 0 {
				return nil, ArgsError("no value after " + word)
			}
			value, words = words[0], words[1:]
		}
		if err := set(value); err != nil {
			return nil, ArgsError("option " + word + ": " + err.Error())
		}
	}
	return words, nil
}

func cutSuffix(s, suffix string) (string, bool) {
	return strings.TrimSuffix(s, suffix), strings.HasSuffix(s, suffix)
}
