package container

import (
	"runtime"
	"testing"
)

func TestContainersThatAreGoneTakeNoMemory(t *testing.T) {
	r := newRig(t)
	r.script["create"] = `sh -c 'exec sleep 60' & echo $! >"$1"`
	lives := func(n int) uint64 {
		for i := 0; i < n; i++ {
			c, err := r.create("c", simple)
			if err == nil {
				_, err = r.start(c)
			}
			if err == nil {
				err = r.Shutdown(c, false)
			}
			if err == nil {
				err = r.delete(c)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		r.Calls, r.Spawned, r.verbs, r.notices = nil, nil, nil, nil // what the test itself keeps
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := lives(20)
	if after := lives(100); after > before+64*1024 {
		t.Errorf("%d bytes after 20 containers, %d after 120", before, after)
	}
}
