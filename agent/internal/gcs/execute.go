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
	p, err := wire.ParseParameters(q.Parameters)
	if err != nil {
		c.fail(err)
		return
	}
	ports := portsOf(&q, &p)
	if c.container != nil && !p.CreateInUtilityVM {
		c.executeInside(&p, ports)
		return
	}
	c.container = nil
	spec, err := plan(&p)
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

// plan turns the request into what is to be started.
func plan(p *wire.Parameters) (*process.Spec, error) {
	spec := &process.Spec{Args: p.CommandArgs, Env: p.Environment, Dir: p.WorkingDirectory, User: p.User, Console: p.EmulateConsole}
	if len(spec.Args) == 0 {
		words, ok := wire.SplitWords(p.CommandLine)
		if !ok {
			return nil, invalid(`failed to parse command line string "` + p.CommandLine + `"`)
		}
		spec.Args = words
	}
	return spec, check(spec, p.ConsoleSize)
}

// portsOf returns the ports that are to be dialled.
func portsOf(q *wire.Execute, p *wire.Parameters) process.Ports {
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
	return ports
}

// executeInside starts a container's first process, or one more.
func (c *call) executeInside(p *wire.Parameters, ports process.Ports) {
	m := c.bridge.machine
	what, err := wire.ParseObject(p.OciProcess)
	terminal := c.container.Terminal()
	if err == nil && len(what) > 0 {
		terminal, err = what.Bool("terminal")
	}
	if err != nil {
		c.fail(err)
		return
	}
	if terminal {
		ports.Err = 0
	}
	started := func(pid int, err error) {
		switch {
		case err != nil:
			c.fail(err)
		case c.bridge.closed: // nobody knows of it
			_ = m.Processes.Signal(c.container.ID, uint32(pid), 0, false)
		default:
			c.answer(wire.Response{Member: "ProcessId", Number: uint32(pid)})
		}
	}
	stdio := process.Connect(m.Loop, m.Dialler, ports)
	stdio.Then(func(err error) {
		switch {
		case err != nil:
			c.fail(err)
		case c.bridge.closed:
			stdio.Reset()
		case len(what) > 0:
			m.Containers.Exec(c.container, what, stdio, started)
		default:
			m.Containers.Start(c.container, stdio, started)
		}
	})
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
