package wire

import "strconv"

// MaxProcesses is how many processes one answer lists: even with the longest ids, their text written inside a text, they
// fit into MaxText.
const MaxProcesses = 2048

// Query is the body of GetProperties.
type Query struct {
	Request
	Types []string
}

// ParseQuery reads the body of GetProperties; what is asked for is JSON inside JSON.
func ParseQuery(body []byte) (q Query, err error) {
	text := ""
	r := newJSONReader(string(body))
	r.object(func(key string) {
		if key == "Query" {
			text = r.str()
		} else {
			q.member(r, key)
		}
	})
	if err = r.end(); err != nil {
		return q, err
	}
	inner := newJSONReader(text)
	inner.object(func(key string) {
		if key == "PropertyTypes" {
			q.Types = inner.strings()
		} else {
			inner.skip()
		}
	})
	return q, inner.end()
}

// Memory of the machine in pages of 4096 bytes: what programs could still use, and what there is.
type Memory struct{ Available, Assigned uint64 }

// MaxDetached is how many processes one answer tells of that can be attached; they fit into MaxText likewise, with the longest names.
const MaxDetached = 128

// Detached is a process that can be attached. Name is its program's, which the kernel keeps to 15 bytes, and ContainerID "" without one.
type Detached struct {
	PID         int
	Name        string
	ContainerID string
	Terminal    bool
	Ended       bool
}

// ContainerState is where a container is in its life, for a host that has not made it. State is "created", "running", "paused" or "stopped".
type ContainerState struct {
	State     string
	ProcessID uint32 // of its first process
	ExitCode  uint32 // the rest is of one that has stopped
	Type      ExitType
	OOMKills  uint64
}

// Properties is what a system tells of itself. Memory, Metrics, State, and Processes while Listed is false, are not told; nor is Detached while
// it is nil.
type Properties struct {
	Memory    *Memory
	Metrics   *Metrics // a container's
	State     *ContainerState
	Listed    bool
	Processes []int
	Detached  []Detached
}

// AppendProperties appends the JSON text of p, with at most MaxProcesses processes.
func AppendProperties(b []byte, p *Properties) []byte {
	b = append(b, '{')
	if p.Memory != nil {
		b = append(b, `"Memory":{"VirtualMachineMemory":{"AvailableMemory":`...)
		b = strconv.AppendUint(b, p.Memory.Available, 10)
		b = strconv.AppendUint(append(b, `,"AssignedMemory":`...), p.Memory.Assigned, 10)
		b = append(b, `}}`...)
	}
	if p.Listed {
		b = append(comma(b), `"ProcessList":[`...)
		for i, pid := range p.Processes {
			if i == MaxProcesses {
				break
			}
			if i > 0 {
				b = append(b, ',')
			}
			b = append(strconv.AppendInt(append(b, `{"ProcessId":`...), int64(pid), 10), '}')
		}
		b = append(b, ']')
	}
	if p.Detached != nil {
		b = appendDetached(append(comma(b), `"DetachedProcesses":[`...), p.Detached)
	}
	if s := p.State; s != nil {
		b = AppendString(append(comma(b), `"ContainerState":{"State":`...), s.State)
		b = strconv.AppendUint(append(b, `,"ProcessId":`...), uint64(s.ProcessID), 10)
		b = strconv.AppendUint(append(b, `,"ExitCode":`...), uint64(s.ExitCode), 10)
		b = AppendString(append(b, `,"Type":`...), string(s.Type))
		b = append(strconv.AppendUint(append(b, `,"OomKills":`...), s.OOMKills, 10), '}')
	}
	if p.Metrics != nil {
		b = appendMetrics(append(comma(b), `"LCOWMetrics":`...), p.Metrics)
	}
	return append(b, '}')
}

func appendDetached(b []byte, list []Detached) []byte {
	for i, p := range list {
		if i == MaxDetached {
			break
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(append(b, `{"ProcessId":`...), int64(p.PID), 10)
		b = AppendString(append(b, `,"Name":`...), p.Name)
		b = AppendString(append(b, `,"ContainerId":`...), p.ContainerID)
		b = strconv.AppendBool(append(b, `,"Terminal":`...), p.Terminal)
		b = append(strconv.AppendBool(append(b, `,"Ended":`...), p.Ended), '}')
	}
	return append(b, ']')
}

// comma separates a member from those before it.
func comma(b []byte) []byte {
	if b[len(b)-1] == '{' {
		return b
	}
	return append(b, ',')
}
