package wire

import "strconv"

// IOEntry counts what was read from or written to one disk.
type IOEntry struct {
	Major, Minor uint64
	Read, Write  uint64
}

// MemoryLimit is one of the kernel's counters of memory, in bytes.
type MemoryLimit struct{ Limit, Usage, Max, Failures uint64 }

// Metrics are what a container has used, as containerd's metrics of control groups of version 1 have it: counts, bytes and nanoseconds.
type Metrics struct {
	PIDs, PIDLimit               uint64
	CPUTotal, CPUKernel, CPUUser uint64
	Periods, Throttled           uint64
	ThrottledTime                uint64
	Memory                       map[string]uint64 // by their names in version 1
	Usage, Swap, Kernel          MemoryLimit
	OOMKills                     uint64
	Bytes, Operations            []IOEntry
}

// memoryNames are the counters of Metrics.Memory, in the order in which they are told. All but two are told again for the groups below.
var memoryNames = []string{
	"cache", "rss", "rss_huge", "mapped_file", "dirty", "writeback", "pg_pg_in", "pg_pg_out", "pg_fault", "pg_maj_fault", "inactive_anon",
	"active_anon", "inactive_file", "active_file", "unevictable",
}

// appendMetrics appends the JSON text of m.
func appendMetrics(b []byte, m *Metrics) []byte {
	n := func(name string, value uint64) {
		b = strconv.AppendUint(append(AppendString(comma(b), name), ':'), value, 10)
	}
	open := func(name string) { b = append(b, `,"`+name+`":{`...) }
	b = append(b, `{"pids":{`...)
	n("current", m.PIDs)
	n("limit", m.PIDLimit)
	b = append(b, `},"cpu":{"usage":{`...)
	n("total", m.CPUTotal)
	n("kernel", m.CPUKernel)
	n("user", m.CPUUser)
	b = append(b, '}')
	open("throttling")
	n("periods", m.Periods)
	n("throttled_periods", m.Throttled)
	n("throttled_time", m.ThrottledTime)
	b = append(b, `}},"memory":{`...)
	for _, name := range memoryNames {
		n(name, m.Memory[name])
	}
	n("hierarchical_memory_limit", m.Usage.Limit)
	n("hierarchical_swap_limit", m.Swap.Limit)
	for _, name := range memoryNames {
		n("total_"+name, m.Memory[name])
	}
	for _, each := range []struct {
		name string
		of   MemoryLimit
	}{{"usage", m.Usage}, {"swap", m.Swap}, {"kernel", m.Kernel}} {
		open(each.name)
		n("limit", each.of.Limit)
		n("usage", each.of.Usage)
		n("max", each.of.Max)
		n("failcnt", each.of.Failures)
		b = append(b, '}')
	}
	b = append(b, `},"blkio":{`...)
	b = appendIO(b, "io_service_bytes_recursive", m.Bytes)
	b = appendIO(append(b, ','), "io_serviced_recursive", m.Operations)
	b = append(b, '}')
	open("memory_oom_control")
	n("oom_kill", m.OOMKills)
	return append(b, `}}`...)
}

func appendIO(b []byte, name string, entries []IOEntry) []byte {
	b = append(AppendString(b, name), `:[`...)
	for i, e := range entries {
		for j, of := range []struct {
			op    string
			value uint64
		}{{"Read", e.Read}, {"Write", e.Write}} {
			if i+j > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendUint(append(b, `{"op":"`+of.op+`","major":`...), e.Major, 10)
			b = strconv.AppendUint(append(b, `,"minor":`...), e.Minor, 10)
			b = append(strconv.AppendUint(append(b, `,"value":`...), of.value, 10), '}')
		}
	}
	return append(b, ']')
}
