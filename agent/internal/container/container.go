// Package container has the containers of the utility VM: their specifications, their files, their life, and the calls of crun that
// make them (protocol/SPEC.md sections 5 and 9).
//
// A container belongs to the loop, and so needs no lock. What may keep the agent waiting is done beside the loop or by crun, a process
// of its own, and each container waits for its own alone.
package container

import (
	"strconv"

	"utilityvm/agent/internal/loop"
	"utilityvm/agent/internal/network"
	"utilityvm/agent/internal/process"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// maxContainers is how many containers there may be at a time.
const maxContainers = 512

// State is where a container is in its life.
type State string

// The states. What can be asked in which is said where it is asked.
const (
	Creating  State = "being created"
	Created   State = "created"
	Starting  State = "being started"
	Running   State = "running"
	Switching State = "being paused or resumed"
	Paused    State = "paused"
	Stopped   State = "stopped"
	Deleting  State = "being deleted"
)

// Tell sends the notification of an end, and reports whether there was somebody to send it to.
type Tell func(wire.Notification) bool

// Container is one container.
type Container struct {
	ID       string
	activity string
	spec     *spec
	bundle   string
	shared   string // where the containers of a sandbox share folders, "" without a sandbox
	state    State
	streams  *process.Streams // of the first process, until it starts
	said     *said            // of the first process by crun, which it is until it starts
	first    *process.Process
	exit     wire.ExitType
	tell     Tell
	told     bool     // the host knows of its end
	over     bool     // the end of its first process was told
	whenOver []func() // what waits for that
}

// Table holds the containers.
type Table struct {
	kernel    sys.Kernel
	loop      *loop.Loop
	processes *process.Table
	networks  *network.Table
	byID      map[string]*Container
	crun      loop.Once // what makes crunPath
	crunPath  string
	calls     int
}

// NewTable returns an empty table, of containers whose network namespaces are among networks.
func NewTable(l *loop.Loop, k sys.Kernel, processes *process.Table, networks *network.Table) *Table {
	return &Table{kernel: k, loop: l, processes: processes, networks: networks, byID: make(map[string]*Container)}
}

// Find returns the container that a request is about.
func (t *Table) Find(id string) (*Container, error) {
	if c := t.byID[id]; c != nil {
		return c, nil
	}
	return nil, &wire.Error{Code: wire.SystemNotFound, Text: "no such container: " + strconv.Quote(id)}
}

// must refuses what cannot be asked of a container in its state.
func (c *Container) must(what string, states ...State) error {
	for _, s := range states {
		if c.state == s {
			return nil
		}
	}
	if c.state == Creating {
		return &wire.Error{Code: wire.InvalidState, Text: "container is still being created"}
	}
	return &wire.Error{Code: wire.InvalidState, Text: "container " + c.ID + " is " + string(c.state) + ": it cannot be " + what}
}

// Terminal reports whether the first process has a terminal.
func (c *Container) Terminal() bool { return c.spec.terminal }

// cgroup is the folder of the container's control group.
func (c *Container) cgroup() string { return "/sys/fs/cgroup" + cgroupPath(c.ID) }

// ended is called when the first process has ended: nothing of the container goes on.
func (t *Table) ended(c *Container) {
	if !c.spec.ownsProcesses() {
		_ = t.kernel.WriteFile(c.cgroup()+"/cgroup.kill", "1")
	}
	if c.state != Deleting {
		c.state = Stopped
	}
	if c.streams != nil {
		c.streams.Close()
		c.streams = nil
	}
	if c.spec.network != "" {
		t.loop.Beside(func() error { t.disconnect(c); return nil }, func(error) {})
	}
}

// finish is called when those who waited for the first process know of its end.
func (t *Table) finish(c *Container) {
	c.over = true
	t.TellEnd(c, c.tell)
	waiting := c.whenOver
	c.whenOver = nil
	for _, next := range waiting {
		next()
	}
}

// Part is called when the machine goes on from what was saved: its host knows of no container's end.
func (t *Table) Part() {
	for _, c := range t.byID {
		c.told = false
	}
}

// State tells where a container is in its life.
func (t *Table) State(c *Container) (*wire.ContainerState, error) {
	if err := c.must("taken over", Created, Running, Paused, Stopped); err != nil {
		return nil, err
	}
	s := &wire.ContainerState{State: string(c.state), ProcessID: uint32(c.first.PID()), Type: wire.NoExit}
	if c.state == Stopped {
		s.ExitCode, s.Type, s.OOMKills = uint32(c.first.Code()), c.exit, t.oomKills(c)
	}
	return s, nil
}

// HeardBy says who hears of the container's end from now on: the host that waits for a process of it.
func (c *Container) HeardBy(tell Tell) { c.tell = tell }

// TellEnd tells the host that the container has ended, once and if it has.
func (t *Table) TellEnd(c *Container, tell Tell) {
	if c.over && !c.told {
		c.told = tell(wire.Notification{ContainerID: c.ID, ActivityID: c.activity, Type: c.exit, OOMKills: t.oomKills(c)})
	}
}
