package process

import (
	"sort"
	"strconv"
	"strings"

	"utilityvm/agent/wire"
)

// Part is called when the machine goes on from what was saved: the host that had started its processes is not there. Nobody waits for them
// any more, and their streams stand still until another host attaches them.
func (t *Table) Part() {
	for _, p := range t.byPID {
		if p.owner == "" || !p.ended && !p.stdio.running {
			continue // the agent's own, or one that has not been started yet
		}
		for len(p.waiters) > 0 {
			t.Cancel(p.waiters[0])
		}
		p.stdio.part()
	}
}

// part takes the streams from the host that is not there.
func (s *Stdio) part() {
	s.parted = true
	if s.in.stream != nil {
		left, last := s.in.stream.Part()
		s.in.stream = nil
		if !s.in.closed {
			s.in.left, s.in.last = append(s.in.left, left...), s.in.last || last
			s.in.flow()
		}
	}
	for _, o := range []*output{s.out, s.err} {
		if o.stream != nil {
			_, _ = o.stream.Part()
			o.stream = nil
			o.parked = o.fd >= 0
		}
		o.draining = o.draining && !o.parked
	}
	s.settle()
}

// abandon gives up streams that nobody has asked for.
func (s *Stdio) abandon() {
	s.parted = false
	s.in.close()
	for _, o := range []*output{s.out, s.err} {
		o.parked = false
		o.close(wire.ShutBoth)
	}
}

// Detached returns the processes that Part has left and nobody has attached since, the lowest id first.
func (t *Table) Detached() []wire.Detached {
	list := make([]wire.Detached, 0, len(t.byPID))
	for pid, p := range t.byPID {
		if !p.stdio.parted {
			continue
		}
		d := wire.Detached{PID: pid, Terminal: p.console, Ended: p.ended}
		if p.owner != wire.NullGUID {
			d.ContainerID = p.owner
		}
		if name, err := t.kernel.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm"); err == nil && !p.ended {
			d.Name = strings.TrimSuffix(string(name), "\n")
		}
		list = append(list, d)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].PID < list[j].PID })
	return list
}

// Reattach connects the streams of a process that Part has left with the host's ports. What the host does not ask for is closed, or dropped;
// what the process does not have ends at once. When that fails nothing has changed.
func (t *Table) Reattach(owner string, pid uint32, dialler Dialler, ports Ports) (*wire.ProcessState, error) {
	p, err := t.find(owner, pid)
	if err != nil {
		return nil, err
	}
	if !p.stdio.parted {
		return nil, &wire.Error{Code: wire.InvalidState, Text: "process " + strconv.Itoa(p.pid) + " waits for no host: this one has started or attached it"}
	}
	if p.console {
		ports.Err = 0
	}
	for _, stream := range []struct {
		name string
		port uint32
	}{{"stdin", ports.In}, {"stdout", ports.Out}, {"stderr", ports.Err}} {
		if stream.port != 0 && !dialler.Promised(stream.port) {
			return nil, notConnected(stream.name)
		}
	}
	p.stdio.reattach(dialler, ports)
	return &wire.ProcessState{Terminal: p.console, Ended: p.ended, ExitCode: uint32(p.code)}, nil
}

func (s *Stdio) reattach(dialler Dialler, ports Ports) {
	s.parted = false
	s.in.reattach(dialler, ports.In, s.out.fd)
	s.out.reattach(dialler, ports.Out)
	s.err.reattach(dialler, ports.Err)
}

// reattach begins to take the process's input from the host. A terminal takes it for as long as it is there.
func (i *input) reattach(dialler Dialler, port uint32, terminal int) {
	if port == 0 {
		if !i.shared {
			i.finish()
		}
		return
	}
	i.opened, i.refused = func() {}, nil
	i.stream = dialler.Dial(port, i)
	if i.shared && terminal >= 0 {
		i.fd, i.closed, i.last = terminal, false, false
	}
	if i.fd < 0 || i.closed {
		i.closed = false // so that the host is told
		i.close()
		return
	}
	i.flow()
}

// reattach begins to give the process's output to the host.
func (o *output) reattach(dialler Dialler, port uint32) {
	o.parked = false
	if port == 0 {
		o.Ready(0)
		return
	}
	o.opened, o.refused = func() {}, nil
	o.stream = dialler.Dial(port, o)
	if o.fd < 0 {
		o.stream.Shutdown(wire.ShutSend)
		return
	}
	o.stream.Ready()
}
