package container

import (
	"strconv"
	"strings"
	"syscall"

	"utilityvm/agent/internal/loop"
	"utilityvm/agent/internal/process"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

const (
	crunFile  = "/bin/crun"
	crunState = "/run/crun"
	// patience is how long crun may take, in milliseconds. The host gives up a request after five minutes, and the machine with it.
	patience = 120_000
)

var crunEnvironment = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

// openCrun makes the file from which crun, the program that makes containers, is run: in memory and sealed, so that no container can change
// it. From any other file crun would make such a copy of itself at each run, and load all of its libraries a second time.
func (t *Table) openCrun() error {
	if _, err := t.kernel.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		return &wire.Error{Code: wire.NotImpl, Text: "containers need control groups of version 2; the machine was booted with uvm.cgroup=1"}
	}
	if err := sys.MakeFolders(t.kernel, machineFolder, 0o700); err != nil {
		return err
	}
	fd, err := t.kernel.Seal(crunFile)
	if err != nil {
		return &wire.Error{Code: wire.Fail, Text: "a sealed copy of " + crunFile, Cause: err}
	}
	t.crunPath = ownFile(fd)
	return nil
}

// ownFile returns the path by which other processes open a file that the agent has open.
func ownFile(fd int) string {
	return "/proc/" + strconv.Itoa(syscall.Getpid()) + "/fd/" + strconv.Itoa(fd)
}

// errand is one run of crun for a container, with files of its own.
type errand struct {
	table   *Table
	path    string           // of its files, without their endings
	streams *process.Streams // of the process that it starts, if it starts one
	said    *said
}

// errand begins a run of crun.
func (t *Table) errand(c *Container) *errand {
	t.calls++
	return &errand{table: t, path: folder(c.ID) + "/" + strconv.Itoa(t.calls)}
}

// run runs crun and then calls done, with what crun said if it failed.
func (e *errand) run(files [3]int, done func(error), words ...string) {
	e.launch(files, words, func(err error) {
		e.said.close()
		done(err)
	})
}

// launch runs crun as run does; what it says of the process that it has started may come later.
func (e *errand) launch(files [3]int, words []string, done func(error)) {
	var err error
	if e.said, err = listen(e.table.loop, "crun "+words[0]); err != nil {
		done(err)
		return
	}
	words = append([]string{"crun", "--log", e.said.path()}, words...)
	c := &sys.Command{Path: e.table.crunPath, Args: words, Env: crunEnvironment, Dir: "/", Files: files}
	var late *loop.Timer
	pid, err := e.table.processes.Launch(c, func(code int) {
		e.table.loop.Cancel(late)
		e.said.handed()
		if code == 0 {
			done(nil)
			return
		}
		done(e.said.failure(code))
	})
	if err != nil {
		done(&wire.Error{Code: wire.Fail, Text: "running crun", Cause: err})
		return
	}
	late = e.table.loop.After(patience, func() { _ = e.table.kernel.Kill(pid, int(syscall.SIGKILL)) })
}

// open makes the streams of a process that crun is to start, and returns the words for crun up to those that say what it is.
func (e *errand) open(verb string, terminal bool, wanted process.Wanted) (words []string, err error) {
	words = []string{verb, "--pid-file", e.path + ".pid"}
	if terminal {
		e.streams, err = e.table.processes.Console(e.path + ".tty")
		return append(words, "--console-socket", e.path+".tty"), err
	}
	e.streams, err = e.table.processes.Streams(wanted)
	return words, err
}

// bear runs crun to start the process whose streams are open, and adopts it for its owner; done gets it, or why there is none. A process
// that waits is adopted once crun has ended, one that does not when it is known to run its program.
func (e *errand) bear(words []string, waits bool, owner string, ending, over func(), done func(*process.Process, error)) {
	enough := e.table.processes.Expect()
	born := func(err error) {
		var p *process.Process
		if err == nil {
			p, err = e.adopt(owner, ending, over)
		}
		enough()
		e.clean()
		if err != nil {
			e.streams.Close()
		}
		if err != nil || !waits {
			e.said.close()
		}
		done(p, err)
	}
	e.launch(e.streams.Theirs(), words, func(err error) {
		if err != nil || waits {
			born(err)
			return
		}
		e.said.whenOver(born)
	})
}

// adopt takes over the process that crun has started.
func (e *errand) adopt(owner string, ending, over func()) (*process.Process, error) {
	if err := e.streams.Started(); err != nil {
		return nil, err
	}
	pid, err := e.pid()
	if err != nil {
		return nil, err
	}
	return e.table.processes.Adopt(owner, pid, ending, over)
}

// pid reads the number of the process that crun has started.
func (e *errand) pid() (int, error) {
	text, err := e.table.kernel.ReadFile(e.path + ".pid")
	if err != nil {
		return 0, &wire.Error{Code: wire.Fail, Text: "the process id that crun tells", Cause: err}
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 0 {
		return 0, &wire.Error{Code: wire.Fail, Text: "the process id that crun tells: " + string(text)}
	}
	return pid, nil
}

// clean removes the errand's files.
func (e *errand) clean() {
	for _, ending := range []string{".pid", ".json", ".tty"} {
		_ = e.table.kernel.RemoveTree(e.path + ending)
	}
}
