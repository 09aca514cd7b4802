package container

import (
	"math"
	"reflect"
	"testing"

	"utilityvm/agent/internal/sys/systest"
	"utilityvm/agent/wire"
)

func TestWhatVersion2CountsIsToldAsVersion1DidIt(t *testing.T) {
	const group = "/sys/fs/cgroup/containers/c/"
	k := &systest.Kernel{Files: map[string]string{
		group + "cpu.stat":            "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 3\nnr_throttled 2\nthrottled_usec 7\n",
		group + "memory.stat":         "anon 100\nfile 200\nkernel 50\nfile_mapped 5\npgfault 9\npgmajfault 1\nanon_thp 2\nactive_anon 4\n",
		group + "memory.current":      "400\n",
		group + "memory.max":          "1000\n",
		group + "memory.peak":         "500\n",
		group + "memory.events":       "low 0\nmax 6\noom 2\noom_kill 1\n",
		group + "memory.swap.max":     "max\n",
		group + "memory.swap.current": "0\n",
		group + "pids.current":        "3\n",
		group + "pids.max":            "max\n",
		group + "io.stat":             "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n7:1 \n259:3 rbytes=5\n",
	}}
	c := &Container{ID: "c"}
	want := &wire.Metrics{
		PIDs: 3, CPUTotal: 30_000, CPUUser: 20_000, CPUKernel: 10_000, Periods: 3, Throttled: 2, ThrottledTime: 7_000, OOMKills: 1,
		Usage: wire.MemoryLimit{Limit: 1000, Usage: 400, Max: 500, Failures: 6}, Swap: wire.MemoryLimit{Limit: math.MaxUint64}, Kernel: wire.MemoryLimit{Usage: 50},
		Bytes:      []wire.IOEntry{{Major: 8, Read: 10, Write: 20}, {Major: 259, Minor: 3, Read: 5}},
		Operations: []wire.IOEntry{{Major: 8, Read: 1, Write: 2}, {Major: 259, Minor: 3}},
	}
	got := c.Metrics(k)
	memory := got.Memory
	if got.Memory = nil; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	for name, want := range map[string]uint64{"cache": 200, "rss": 100, "rss_huge": 2, "mapped_file": 5, "pg_fault": 9, "pg_maj_fault": 1, "active_anon": 4, "dirty": 0} {
		if memory[name] != want {
			t.Errorf("%s: %d", name, memory[name])
		}
	}
	if none := (&Container{ID: "none"}).Metrics(k); none.PIDs != 0 || none.Bytes != nil {
		t.Errorf("%+v", none)
	}
}
