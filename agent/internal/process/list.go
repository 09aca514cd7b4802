package process

import "sort"

// Running returns the ids of owner's processes that the host started and that have not ended, the lowest first.
func (t *Table) Running(owner string) []int {
	pids := make([]int, 0, len(t.byPID))
	for pid, p := range t.byPID {
		if !p.ended && p.owner == owner {
			pids = append(pids, pid)
		}
	}
	sort.Ints(pids)
	return pids
}
