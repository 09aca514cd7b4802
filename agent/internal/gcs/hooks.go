package gcs

import (
	"strconv"
	"syscall"

	"utilityvm/agent/internal/loop"
	"utilityvm/agent/internal/process"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

const (
	// hooksFolder has the programs that tell others of a machine that it goes on as another; each is run, in the order of their names.
	hooksFolder = "/etc/utilityvm/after-clone.d"
	// hookPatience is how long one of them may take, in milliseconds.
	hookPatience = 5_000
)

var hookEnvironment = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

// hooks are the programs that are still to be run.
type hooks struct {
	loop      *loop.Loop
	kernel    sys.Kernel
	processes *process.Table
	names     []string
	done      func(error)
}

// runHooks runs the programs in the folder of hooks, one after another, and then calls done: with the first failure, after which none is run.
func runHooks(l *loop.Loop, k sys.Kernel, processes *process.Table, done func(error)) {
	names, err := k.ReadDir(hooksFolder)
	if err != nil && err != syscall.ENOENT {
		done(&wire.Error{Code: wire.Fail, Text: hooksFolder, Cause: err})
		return
	}
	h := &hooks{loop: l, kernel: k, processes: processes, names: names, done: done}
	h.next()
}

// next runs the next program. What it says goes to the machine's console.
func (h *hooks) next() {
	if len(h.names) == 0 {
		h.done(nil)
		return
	}
	path := hooksFolder + "/" + h.names[0]
	h.names = h.names[1:]
	why := ""
	var late *loop.Timer
	null := h.processes.Null()
	c := &sys.Command{Path: path, Args: []string{path}, Env: hookEnvironment, Dir: "/", Files: [3]int{null[0], 1, 2}}
	pid, err := h.processes.Launch(c, func(code int) {
		h.loop.Cancel(late)
		if code != 0 {
			h.done(&wire.Error{Code: wire.Fail, Text: path + ": exit status " + strconv.Itoa(code) + why})
			return
		}
		h.next()
	})
	if err != nil {
		h.done(&wire.Error{Code: wire.Fail, Text: path, Cause: err})
		return
	}
	late = h.loop.After(hookPatience, func() {
		why = ": it was killed after " + strconv.Itoa(hookPatience/1000) + " s"
		_ = h.kernel.Kill(-pid, int(syscall.SIGKILL))
	})
}
