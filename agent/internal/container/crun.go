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
	crunMount = "/run/utilityvm/crun"
	crunState = "/run/crun"
	// patience is how long crun may take, in milliseconds. The host gives up a request after five minutes, and the machine with it.
	patience = 120_000
	// maxLog is the most of what crun says of a failure that is told on.
	maxLog = 4096
)

var crunEnvironment = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

// mountCrun makes the read-only mount from which crun, the program that makes containers, is run: from a file that can be written it
// first makes a copy of itself, so that no container can change it, and loads all of its libraries a second time.
func mountCrun(k sys.Kernel) error {
	if _, err := k.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		return &wire.Error{Code: wire.NotImpl, Text: "containers need control groups of version 2; the machine was booted with uvm.cgroup=1"}
	}
	if err := sys.MakeFolders(k, machineFolder, 0o700); err != nil {
		return err
	}
	err := k.CreateFile(crunMount, "", 0o700)
	if err == nil {
		err = k.Bind(crunFile, crunMount, true)
	}
	if err != nil {
		return &wire.Error{Code: wire.Fail, Text: "mounting " + crunFile + " on " + crunMount, Cause: err}
	}
	return nil
}

// errand is one run of crun for a container, with files of its own.
type errand struct {
	table   *Table
	path    string           // of its files, without their endings
	streams *process.Streams // of the process that it starts, if it starts one
}

// errand begins a run of crun.
func (t *Table) errand(c *Container) *errand {
	t.calls++
	return &errand{table: t, path: folder(c.ID) + "/" + strconv.Itoa(t.calls)}
}

// run runs crun and then calls done, with what crun said if it failed.
func (e *errand) run(files [3]int, done func(error), words ...string) {
	log := e.path + ".log"
	c := &sys.Command{Path: crunMount, Args: append([]string{"crun", "--log", log}, words...), Env: crunEnvironment, Dir: "/", Files: files}
	var late *loop.Timer
	pid, err := e.table.processes.Launch(c, func(code int) {
		e.table.loop.Cancel(late)
		if code == 0 {
			done(nil)
			return
		}
		text, _ := e.table.kernel.ReadBelow("/", log, 16*maxLog)
		done(failure(words[0], code, string(text)))
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

// bear runs crun to start the process whose streams are open, and adopts it for its owner; done gets it, or why there is none.
func (e *errand) bear(words []string, owner string, ending, over func(), done func(*process.Process, error)) {
	enough := e.table.processes.Expect()
	e.run(e.streams.Theirs(), func(err error) {
		var p *process.Process
		if err == nil {
			p, err = e.adopt(owner, ending, over)
		}
		enough()
		e.clean()
		if err != nil {
			e.streams.Close()
		}
		done(p, err)
	}, words...)
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
	for _, ending := range []string{".log", ".pid", ".json", ".tty"} {
		_ = e.table.kernel.RemoveTree(e.path + ending)
	}
}

// failure makes an error of crun's words.
func failure(verb string, code int, log string) error {
	var lines []string
	for _, line := range strings.Split(log, "\n") {
		if _, text, dated := strings.Cut(line, "Z: "); dated {
			line = text
		}
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	text := strings.Join(lines, "; ")
	if len(text) > maxLog {
		text = text[:maxLog]
	}
	kind := wire.Fail
	switch {
	case strings.Contains(text, "not found in $PATH"):
		kind = wire.FileNotFound
	case strings.Contains(text, "open executable"):
		kind = wire.AccessDenied
	case strings.Contains(text, "chdir"):
		kind = wire.PathNotFound
	case code == 128+int(syscall.SIGKILL):
		text = "did not end within " + strconv.Itoa(patience/1000) + " s, and was killed; " + text
	case text == "":
		text = "exit code " + strconv.Itoa(code)
	}
	return &wire.Error{Code: kind, Text: "crun " + verb + ": " + text}
}
