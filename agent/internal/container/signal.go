package container

import (
	"sort"
	"strconv"
	"strings"
	"syscall"

	"utilityvm/agent/wire"
)

// Shutdown asks the first process to end, or makes it. The others end with it.
func (t *Table) Shutdown(c *Container, graceful bool) error {
	signal := uint32(syscall.SIGKILL)
	if graceful {
		signal = uint32(syscall.SIGTERM)
	}
	if c.state == Stopped || c.state == Deleting {
		if !graceful {
			t.processes.Hurry(c.ID, 0)
		}
		return &wire.Error{Code: wire.SystemNotFound, Text: "container " + c.ID + " has ended"}
	}
	if err := c.must("ended", Created, Starting, Running, Switching, Paused); err != nil {
		return err
	}
	return t.Signal(c, uint32(c.first.PID()), signal, false)
}

// Signal sends a signal to a process of the container, SIGKILL for 0; with group to the process's whole group, and to all of the
// container's processes when it is the first one.
func (t *Table) Signal(c *Container, pid, signal uint32, group bool) error {
	if signal == 0 {
		signal = uint32(syscall.SIGKILL)
	}
	first := c.first != nil && uint32(c.first.PID()) == pid
	if syscall.Signal(signal) == syscall.SIGKILL {
		t.processes.Hurry(c.ID, pid)
	}
	err := t.processes.Signal(c.ID, pid, signal, group && !first)
	if err != nil || !first {
		return err
	}
	switch syscall.Signal(signal) {
	case syscall.SIGTERM:
		c.exit = wire.GracefulExit
	case syscall.SIGKILL:
		c.exit = wire.ForcedExit
	}
	if group {
		for _, other := range t.members(c) {
			if other != c.first.PID() {
				_ = t.kernel.Kill(other, int(signal))
			}
		}
	}
	return nil
}

// Members returns the ids of all processes of a container; beside the loop.
func (t *Table) Members(c *Container) []int {
	pids := t.members(c)
	sort.Ints(pids)
	return pids
}

// Readable refuses a container of which nothing can be told yet.
func (c *Container) Readable() error {
	return c.must("asked", Created, Starting, Running, Switching, Paused, Stopped, Deleting)
}

// members returns the ids of all processes in the container's control group and in those below.
func (t *Table) members(c *Container) []int { return t.membersOf(c.cgroup(), 0) }

// maxDepth is how far below a container's control group its processes are looked for.
const maxDepth = 8

func (t *Table) membersOf(cgroup string, depth int) (pids []int) {
	text, err := t.kernel.ReadFile(cgroup + "/cgroup.procs")
	if err != nil || depth == maxDepth {
		return nil
	}
	for _, line := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(line); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	names, _ := t.kernel.ReadDir(cgroup)
	for _, name := range names {
		pids = append(pids, t.membersOf(cgroup+"/"+name, depth+1)...) // of a file there are none
	}
	return pids
}
