package container

import (
	"strconv"
	"strings"
)

// oomKills is how many of the container's processes the kernel has killed because there was no memory left for them.
func (t *Table) oomKills(c *Container) uint64 {
	text, _ := t.kernel.ReadFile(c.cgroup() + "/memory.events")
	return counters(string(text))["oom_kill"]
}

// counters reads lines of a name and a number.
func counters(text string) map[string]uint64 {
	found := map[string]uint64{}
	for _, line := range strings.Split(text, "\n") {
		if name, number, ok := strings.Cut(line, " "); ok {
			if n, err := strconv.ParseUint(number, 10, 64); err == nil {
				found[name] = n
			}
		}
	}
	return found
}
