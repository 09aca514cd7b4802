package gcs

import (
	"strconv"
	"strings"

	"utilityvm/agent/internal/logs"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// properties tells what a container, or the utility VM, knows of itself. What it does not know is left out, and the log says so.
func properties(c *call) {
	q, err := wire.ParseQuery(c.body)
	if !c.admit(&q.Request, err) {
		return
	}
	if c.container != nil {
		c.propertiesInside(q.Types)
		return
	}
	m := c.bridge.machine
	var p wire.Properties
	for _, name := range q.Types {
		switch name {
		case "ProcessList":
			p.Listed, p.Processes = true, m.Processes.Running(c.owner())
		case "DetachedProcesses":
			p.Detached = m.Processes.Detached()
		case "Memory":
			if p.Memory, err = memory(m.Kernel); err != nil {
				c.fail(&wire.Error{Code: wire.Fail, Text: "/proc/meminfo", Cause: err})
				return
			}
		default:
			c.unknownType(name)
		}
	}
	c.tell(&p)
}

// propertiesInside tells what a container knows of itself: all of its processes, also those that it has started itself.
func (c *call) propertiesInside(types []string) {
	if err := c.container.Readable(); err != nil {
		c.fail(err)
		return
	}
	m, container := c.bridge.machine, c.container
	var p wire.Properties
	wanted := map[string]bool{}
	for _, name := range types {
		if name != "ProcessList" && name != "Statistics" && name != "ContainerState" {
			c.unknownType(name)
		}
		wanted[name] = true
	}
	if wanted["ContainerState"] {
		state, err := m.Containers.State(container)
		if err != nil {
			c.fail(err)
			return
		}
		p.State = state
	}
	m.Loop.Beside(func() error {
		if wanted["ProcessList"] {
			p.Listed, p.Processes = true, m.Containers.Members(container)
		}
		if wanted["Statistics"] {
			p.Metrics = container.Metrics(m.Kernel)
		}
		return nil
	}, func(err error) {
		if err != nil {
			c.fail(err)
			return
		}
		c.tell(&p)
	})
}

func (c *call) unknownType(name string) {
	c.bridge.machine.Log.Write(logs.Warning, "unknown property type", logs.Field{Key: "type", Value: name})
}

// tell answers with properties.
func (c *call) tell(p *wire.Properties) {
	left := len(p.Processes) - wire.MaxProcesses
	if left <= 0 {
		left = len(p.Detached) - wire.MaxDetached
	}
	if left > 0 {
		c.bridge.machine.Log.Write(logs.Warning, "too many processes for an answer", logs.Field{Key: "left_out", Value: strconv.Itoa(left)})
	}
	c.answer(wire.Response{Member: "Properties", Text: string(wire.AppendProperties(nil, p))})
}

// memory reads /proc/meminfo, which counts in KiB.
func memory(k sys.Kernel) (*wire.Memory, error) {
	text, err := k.ReadFile("/proc/meminfo")
	if err != nil {
		return nil, err
	}
	pages := map[string]uint64{}
	for _, line := range strings.Split(string(text), "\n") {
		if words := strings.Fields(line); len(words) == 3 && words[2] == "kB" {
			if n, err := strconv.ParseUint(words[1], 10, 64); err == nil {
				pages[words[0]] = n / 4
			}
		}
	}
	return &wire.Memory{Available: pages["MemAvailable:"], Assigned: pages["MemTotal:"]}, nil
}
