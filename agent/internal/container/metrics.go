package container

import (
	"math"
	"strconv"
	"strings"

	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// maxDisks is how many disks the metrics tell of.
const maxDisks = 64

// oomKills is how many of the container's processes the kernel has killed because there was no memory left for them.
func (t *Table) oomKills(c *Container) uint64 {
	return group{t.kernel, c.cgroup()}.counters("memory.events")["oom_kill"]
}

// group is a control group of version 2.
type group struct {
	kernel sys.Kernel
	path   string
}

func (g group) text(file string) string {
	text, _ := g.kernel.ReadFile(g.path + "/" + file) // a controller that the kernel does not have tells nothing
	return strings.TrimSpace(string(text))
}

// number reads a file that holds one number; other stands for "max".
func (g group) number(file string, other uint64) uint64 {
	text := g.text(file)
	if text == "max" {
		return other
	}
	n, _ := strconv.ParseUint(text, 10, 64)
	return n
}

// counters reads a file with lines of a name and a number.
func (g group) counters(file string) map[string]uint64 {
	found := map[string]uint64{}
	for _, line := range strings.Split(g.text(file), "\n") {
		if name, number, ok := strings.Cut(line, " "); ok {
			if n, err := strconv.ParseUint(number, 10, 64); err == nil {
				found[name] = n
			}
		}
	}
	return found
}

// Metrics reads what a container has used; beside the loop.
func (c *Container) Metrics(k sys.Kernel) *wire.Metrics {
	g := group{k, c.cgroup()}
	cpu, memory, events := g.counters("cpu.stat"), g.counters("memory.stat"), g.counters("memory.events")
	m := &wire.Metrics{
		PIDs: g.number("pids.current", 0), PIDLimit: g.number("pids.max", 0),
		CPUTotal: cpu["usage_usec"] * 1000, CPUKernel: cpu["system_usec"] * 1000, CPUUser: cpu["user_usec"] * 1000,
		Periods: cpu["nr_periods"], Throttled: cpu["nr_throttled"], ThrottledTime: cpu["throttled_usec"] * 1000,
		Memory: map[string]uint64{
			"cache": memory["file"], "rss": memory["anon"], "rss_huge": memory["anon_thp"], "mapped_file": memory["file_mapped"],
			"dirty": memory["file_dirty"], "writeback": memory["file_writeback"], "pg_fault": memory["pgfault"], "pg_maj_fault": memory["pgmajfault"],
			"inactive_anon": memory["inactive_anon"], "active_anon": memory["active_anon"], "inactive_file": memory["inactive_file"],
			"active_file": memory["active_file"], "unevictable": memory["unevictable"],
		},
		Usage:  wire.MemoryLimit{Limit: g.number("memory.max", math.MaxUint64), Usage: g.number("memory.current", 0), Max: g.number("memory.peak", 0), Failures: events["max"]},
		Swap:   wire.MemoryLimit{Limit: g.number("memory.swap.max", math.MaxUint64), Usage: g.number("memory.swap.current", 0)},
		Kernel: wire.MemoryLimit{Usage: memory["kernel"]}, OOMKills: events["oom_kill"],
	}
	m.Bytes, m.Operations = disks(g.text("io.stat"))
	return m
}

// disks reads lines like "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6".
func disks(text string) (bytes, operations []wire.IOEntry) {
	for _, line := range strings.Split(text, "\n") {
		words := strings.Fields(line)
		if len(words) < 2 || len(bytes) == maxDisks {
			continue
		}
		number := func(text string) uint64 {
			n, _ := strconv.ParseUint(text, 10, 64)
			return n
		}
		major, minor, _ := strings.Cut(words[0], ":")
		counts := map[string]uint64{}
		for _, word := range words[1:] {
			name, count, _ := strings.Cut(word, "=")
			counts[name] = number(count)
		}
		bytes = append(bytes, wire.IOEntry{Major: number(major), Minor: number(minor), Read: counts["rbytes"], Write: counts["wbytes"]})
		operations = append(operations, wire.IOEntry{Major: number(major), Minor: number(minor), Read: counts["rios"], Write: counts["wios"]})
	}
	return bytes, operations
}
