package gcs

import (
	"strconv"
	"strings"

	"utilityvm/agent/internal/logs"
	"utilityvm/agent/internal/process"
	"utilityvm/agent/wire"
)

// execute starts a process: first its streams are dialled, then it is spawned.
func execute(c *call) {
	q, err := wire.ParseExecute(c.body)
	if !c.admit(&q.Request, err) {
		return
	}
	spec, ports, err := plan(&q)
	if err != nil {
		c.fail(err)
		return
	}
	m := c.bridge.machine
	stdio := process.Connect(m.Loop, m.Dialler, ports)
	stdio.Then(func(err error) {
		if err != nil {
			c.fail(err)
		} else {
			c.start(spec, stdio)
		}
	})
}

// start spawns the process on its connected streams, unless the host that asked for it is gone.
func (c *call) start(spec *process.Spec, stdio *process.Stdio) {
	if c.bridge.closed {
		stdio.Reset()
		return
	}
	m := c.bridge.machine
	pid, err := m.Processes.Start(spec, stdio)
	if err != nil {
		c.fail(err)
		return
	}
	m.Log.Write(logs.Debug, "process started", logs.Field{Key: "pid", Value: strconv.Itoa(pid)},
		logs.Field{Key: "program", Value: spec.Args[0]})
	c.answer(wire.Response{Member: "ProcessId", Number: uint32(pid)})
}

// plan turns the request into what is to be started and which ports are to be dialled.
func plan(q *wire.Execute) (*process.Spec, process.Ports, error) {
	p, err := wire.ParseParameters(q.Parameters)
	if err != nil {
		return nil, process.Ports{}, err
	}
	spec := &process.Spec{Args: p.CommandArgs, Env: p.Environment, Dir: p.WorkingDirectory, User: p.User, Console: p.EmulateConsole}
	if len(spec.Args) == 0 {
		words, ok := wire.SplitWords(p.CommandLine)
		if !ok {
			return nil, process.Ports{}, invalid(`failed to parse command line string "` + p.CommandLine + `"`)
		}
		spec.Args = words
	}
	if err := check(spec, p.ConsoleSize); err != nil {
		return nil, process.Ports{}, err
	}
	ports := process.Ports{In: q.StdIn, Out: q.StdOut, Err: q.StdErr}
	if !p.CreateStdInPipe {
		ports.In = 0
	}
	if !p.CreateStdOutPipe {
		ports.Out = 0
	}
	if !p.CreateStdErrPipe || p.EmulateConsole {
		ports.Err = 0
	}
	return spec, ports, nil
}

// check refuses what no kernel could start, and takes the console's size.
func check(spec *process.Spec, size []uint32) error {
	if len(spec.Args) == 0 || spec.Args[0] == "" {
		return invalid("no command was given")
	}
	for _, entry := range spec.Env {
		if strings.HasPrefix(entry, "=") {
			return invalid("an environment variable has no name")
		}
	}
	for _, list := range [][]string{spec.Args, spec.Env, {spec.Dir}} {
		for _, text := range list {
			if strings.IndexByte(text, 0) >= 0 {
				return invalid("a zero byte in an argument, the environment or the working directory")
			}
		}
	}
	switch {
	case len(size) == 0:
		return nil
	case len(size) != 2 || size[0] > 0xffff || size[1] > 0xffff:
		return invalid("ConsoleSize must be a height and a width")
	}
	spec.Height, spec.Width = uint16(size[0]), uint16(size[1])
	return nil
}

func invalid(text string) error {
	return &wire.Error{Code: wire.InvalidArg, Text: text}
}
