package container

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"utilityvm/agent/internal/loop"
	"utilityvm/agent/internal/network"
	"utilityvm/agent/internal/process"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/internal/sys/systest"
	"utilityvm/agent/wire"
)

// TestMain makes the test inherit orphans, as PID 1 does.
func TestMain(m *testing.M) {
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, 36 /* PR_SET_CHILD_SUBREAPER */, 1, 0)
	os.Exit(m.Run())
}

// machine is a kernel on which crun is a shell script, and everything else but processes is not real.
type machine struct {
	systest.Kernel
	folder string
	script map[string]string // by crun's verb; $1 is where the process id goes, $2 where crun tells of failures
	verbs  []string
	copies []string        // where folders were copied to
	empty  map[string]bool // folders that are there, with nothing in them
}

// Spawn implements sys.Kernel.
func (m *machine) Spawn(c *sys.Command) (sys.Child, error) {
	verb, log, pid := c.Args[0], "", ""
	if verb == "cp" {
		m.copies = append(m.copies, c.Args[3])
	} else {
		verb, log = c.Args[3], c.Args[2]
	}
	for i, word := range c.Args {
		if word == "--pid-file" {
			pid = c.Args[i+1]
		}
	}
	m.verbs = append(m.verbs, verb)
	real := *c
	real.Path, real.Args = "/bin/sh", []string{"sh", "-c", m.script[verb], "sh", m.real(pid), log}
	return sys.Linux{}.Spawn(&real)
}

func (m *machine) real(path string) string { return filepath.Join(m.folder, filepath.Base(path)) }

// ReadFile implements sys.Kernel.
func (m *machine) ReadFile(path string) ([]byte, error) {
	if strings.HasSuffix(path, ".pid") {
		return os.ReadFile(m.real(path))
	}
	return m.Kernel.ReadFile(path)
}

// ReadDir implements sys.Kernel.
func (m *machine) ReadDir(path string) ([]string, error) {
	if m.empty[path] {
		return nil, nil
	}
	return m.Kernel.ReadDir(path)
}

// OpenProcess implements sys.Kernel.
func (m *machine) OpenProcess(pid int) (int, error) { return sys.Linux{}.OpenProcess(pid) }

// Kill implements sys.Kernel.
func (m *machine) Kill(pid, signal int) error { return sys.Linux{}.Kill(pid, signal) }

const (
	sleeps = `sleep 60 & echo $! >"$1"`
	// orphan ends, and is nobody's but the test's, before crun does.
	orphan = `rm -f "$1"; sh -c 'sh -c "echo \$\$ >$1; exit 9" &' sh "$1"; while [ ! -s "$1" ]; do sleep 0.01; done; sleep 0.05`
)

type idle struct{}

func (idle) Work() int { return loop.Forever }

// rig is a table of containers on such a machine.
type rig struct {
	*machine
	*Table
	t       *testing.T
	loop    *loop.Loop
	notices []wire.Notification
	deaf    bool // nobody hears of an end
}

func newRig(t *testing.T) *rig {
	t.Helper()
	m := &machine{folder: t.TempDir(), script: map[string]string{"create": sleeps, "exec": sleeps, "update": "true", "start": "true", "delete": "true"}}
	m.Files = map[string]string{"/sys/fs/cgroup/cgroup.controllers": "", "/proc/sys/kernel/hostname": "vm\n"}
	l, err := loop.New()
	if err != nil {
		t.Fatal(err)
	}
	processes, err := process.NewTable(l, m)
	if err != nil {
		t.Fatal(err)
	}
	l.Serve(idle{}, processes.Reap)
	r := &rig{machine: m, Table: NewTable(l, m, processes, &network.Table{}), t: t, loop: l}
	t.Cleanup(processes.KillAll)
	return r
}

func (r *rig) tell(n wire.Notification) bool {
	if !r.deaf {
		r.notices = append(r.notices, n)
	}
	return !r.deaf
}

// do runs what is given and then the loop, until done is called.
func (r *rig) do(what func(done func(error))) (failure error) {
	r.t.Helper()
	called := false
	r.loop.After(0, func() {
		what(func(err error) {
			if called {
				r.t.Error("done was called twice")
			}
			called, failure = true, err
			r.loop.Stop(nil)
		})
	})
	late := r.loop.After(20_000, func() { r.loop.Stop(errLate) })
	defer r.loop.Cancel(late)
	if err := r.loop.Run(); err != nil {
		r.t.Fatal(err)
	}
	return failure
}

var errLate = &wire.Error{Text: "nothing came of it in 20 s"}

func (r *rig) create(id, spec string) (*Container, error) {
	r.t.Helper()
	o, err := wire.ParseObject(spec)
	if err != nil {
		r.t.Fatal(err)
	}
	d := &wire.Document{Bundle: "/run/gcs/c/" + id, Spec: o}
	err = r.do(func(done func(error)) { r.Create(id, "activity", d, r.tell, done) })
	c, _ := r.Find(id)
	return c, err
}

func (r *rig) start(c *Container) (pid int, err error) {
	r.t.Helper()
	stdio := process.Connect(r.loop, nil, process.Ports{})
	err = r.do(func(done func(error)) { r.Start(c, stdio, func(n int, err error) { pid = n; done(err) }) })
	return pid, err
}

func (r *rig) exec(c *Container) (pid int, err error) {
	r.t.Helper()
	stdio := process.Connect(r.loop, nil, process.Ports{})
	what := wire.Object{{Name: "args", Text: `["x"]`}}
	err = r.do(func(done func(error)) { r.Exec(c, what, stdio, func(n int, err error) { pid = n; done(err) }) })
	return pid, err
}

func (r *rig) delete(c *Container) error {
	r.t.Helper()
	return r.do(func(done func(error)) { r.Delete(c, done) })
}

// wait returns the exit code of a process.
func (r *rig) wait(id string, pid int) (code int) {
	r.t.Helper()
	err := r.do(func(done func(error)) {
		r.processes.Wait(id, uint32(pid), wire.NoTimeout, func(n int, err error) { code = n; done(err) })
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return code
}

const simple = `{"process":{"args":["x"]},"root":{"path":"rootfs"},"linux":{"namespaces":[{"type":"pid"}]}}`

func TestALifeFromCreateToDelete(t *testing.T) {
	r := newRig(t)
	c, err := r.create("c", simple)
	if err != nil || c.state != Created {
		t.Fatal(err)
	}
	pid, err := r.start(c)
	if err != nil || c.state != Running || pid != c.first.PID() {
		t.Fatal(pid, err)
	}
	more, err := r.exec(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.delete(c); wire.CodeOf(err) != wire.InvalidState {
		t.Error("deleted while it runs:", err)
	}
	for _, each := range []int{more, pid} {
		if err := r.Signal(c, uint32(each), 15, false); err != nil {
			t.Fatal(err)
		}
		if code := r.wait("c", each); code != 128+15 {
			t.Errorf("exit code %d", code)
		}
	}
	if want := (wire.Notification{ContainerID: "c", ActivityID: "activity", Type: wire.GracefulExit}); len(r.notices) != 1 || r.notices[0] != want {
		t.Errorf("%+v", r.notices)
	}
	if err := r.Shutdown(c, true); wire.CodeOf(err) != wire.SystemNotFound {
		t.Error(err)
	}
	if err := r.delete(c); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Find("c"); wire.CodeOf(err) != wire.SystemNotFound {
		t.Error(err)
	}
	if got := strings.Join(r.verbs, " "); got != "create exec" {
		t.Errorf("crun %s", got)
	}
	for _, call := range []string{"release /run/crun/c/exec.fifo \x00", "remove group /sys/fs/cgroup/containers/c", "remove /run/crun/c", "remove /run/utilityvm/containers/c"} {
		if !strings.Contains("\n"+strings.Join(r.Calls, "\n")+"\n", "\n"+call+"\n") {
			t.Errorf("%q was not done: %q", call, r.Calls)
		}
	}
}

func TestAProcessThatEndsBeforeItsNumberIsKnownIsNotMissed(t *testing.T) {
	r := newRig(t)
	c, err := r.create("c", simple)
	if err == nil {
		_, err = r.start(c)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.script["exec"] = orphan
	for i := 0; i < 5; i++ {
		pid, err := r.exec(c)
		if err != nil {
			t.Fatal(err)
		}
		if code := r.wait("c", pid); code != 9 {
			t.Errorf("exit code %d", code)
		}
	}
	r.script["create"] = orphan
	c, err = r.create("d", simple)
	if err != nil || c.state != Stopped {
		t.Fatal(err)
	}
	if _, err := r.start(c); wire.CodeOf(err) != wire.InvalidState {
		t.Error(err)
	}
}

func TestWhatCrunSaysOfAFailureIsToldByItsKind(t *testing.T) {
	for said, want := range map[string]wire.HResult{
		"2026-01-01T00:00:00.000000Z: executable file `x` not found in $PATH: No such file or directory": wire.FileNotFound,
		"open executable: Permission denied":    wire.AccessDenied,
		"chdir `/x`: No such file or directory": wire.PathNotFound,
		"chdir `/x`: Not a directory":           wire.PathNotFound,
		"chdir `/x`: Permission denied":         wire.Fail,
		"something else":                        wire.Fail,
		"":                                      wire.Fail,
	} {
		r := newRig(t)
		r.script["create"] = "cat >\"$2\" <<'END'\n" + said + "\nEND\nexit 1"
		_, err := r.create("c", simple)
		_, text, dated := strings.Cut(said, "Z: ")
		if !dated {
			text = said
		}
		if text == "" {
			text = "exit code 1"
		}
		if wire.CodeOf(err) != want || err.Error() != "crun create: "+text {
			t.Errorf("%q: %v", said, err)
		}
		if _, err := r.Find("c"); wire.CodeOf(err) != wire.SystemNotFound {
			t.Error("the name is still taken")
		}
		if last := r.Calls[len(r.Calls)-1]; last != "rmdir /run/gcs/c/c" {
			t.Errorf("left behind: %q", r.Calls)
		}
	}
}

// becoming is crun that leaves a process behind which says something, or nothing, before it is the program.
func becoming(says string) string {
	return `exec 3>>"$2"; sh -c 'sleep 0.1; ` + says + `' & echo $! >"$1"`
}

func TestAFirstProcessThatCannotBecomeItsProgramIsAFailedStart(t *testing.T) {
	for said, want := range map[string]wire.HResult{
		"exec container process (missing dynamic library?) /x: No such file or directory": wire.LoaderNotFound,
		"exec container process /x: Exec format error":                                    wire.BadFormat,
		"exec container process /x: Permission denied":                                    wire.AccessDenied,
	} {
		r := newRig(t)
		r.script["create"] = becoming(`echo "` + said + `" >&2; exit 1`)
		c, err := r.create("c", simple)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.start(c)
		if wire.CodeOf(err) != want || err.Error() != "crun start: "+said {
			t.Errorf("%q: %v", said, err)
		}
		r.wait("c", c.first.PID())
		if err := r.delete(c); err != nil {
			t.Error(err)
		}
	}
}

func TestOnATerminalCrunColoursItsWords(t *testing.T) {
	if !becameNothing("\x1b[1;31m2026-11-30T15:09:26.435960Z: exec container process `/x`: Exec format error\x1b[0m\r\n") {
		t.Error("not known")
	}
	for _, said := range []string{"", "hello\nexec container process\n", "sh: exec: x: not found"} {
		if becameNothing(said) {
			t.Errorf("%q", said)
		}
	}
}

func TestAProgramThatSpeaksAsCrunDoesHasRunUnlessItEndsAsCrunDoes(t *testing.T) {
	r := newRig(t)
	r.script["create"] = becoming(`echo "exec container process is what I say" >&2; exit 2`)
	c, err := r.create("c", simple)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := r.start(c)
	if err != nil || r.wait("c", pid) != 2 {
		t.Error(pid, err)
	}
}

func TestOneMoreProcessThatCannotBecomeItsProgramIsAFailedStart(t *testing.T) {
	r := newRig(t)
	c, err := r.create("c", simple)
	if err == nil {
		_, err = r.start(c)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.script["exec"] = becoming(`echo "exec: Exec format error" >&3; exit 1`)
	if pid, err := r.exec(c); wire.CodeOf(err) != wire.BadFormat || pid != 0 {
		t.Errorf("%d %v", pid, err)
	}
}

func TestAStartIsAnsweredWhenTheProgramRunsAndWhatElseCrunSaysIsNoFailure(t *testing.T) {
	r := newRig(t)
	r.script["create"] = becoming(`echo "something that does not matter" >&3; echo >"$1.runs"; exec 3>&-; exec sleep 60`)
	r.script["create"] = strings.ReplaceAll(r.script["create"], "$1.runs", r.folder+"/runs")
	c, err := r.create("c", simple)
	if err == nil {
		_, err = r.start(c)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.folder + "/runs"); err != nil {
		t.Error("answered before:", err)
	}
}

func TestAProgramThatEndsAtOnceWasStarted(t *testing.T) {
	r := newRig(t)
	r.script["create"] = becoming(`exit 3`)
	c, err := r.create("c", simple)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := r.start(c)
	if err != nil || c.streams != nil {
		t.Fatal(pid, err)
	}
	if code := r.wait("c", pid); code != 3 {
		t.Errorf("exit code %d", code)
	}
}

func TestAnEmptyFolderThatIsMountedGetsWhatTheRootHasInItsPlace(t *testing.T) {
	const mounted = `{"process":{"args":["x"]},"root":{"path":"rootfs"},"mounts":[
		{"destination":"/data","type":"bind","source":"/run/mounts/m1","options":["rbind","copy","rw"]},
		{"destination":"/full","type":"bind","source":"/run/mounts/m2","options":["copy"]},
		{"destination":"/new","type":"bind","source":"/run/mounts/m3","options":["copy"]}]}`
	ours := func(script string) *rig {
		r := newRig(t)
		r.empty = map[string]bool{"/run/mounts/m1": true, "/run/mounts/m3": true}
		for _, path := range []string{"/run/mounts/m2/old", "/run/gcs/c/c/rootfs/data/file", "/run/gcs/c/c/rootfs/full/file"} {
			r.Files[path] = "x"
		}
		r.script["cp"] = script
		return r
	}
	r := ours("exit 0")
	c, err := r.create("c", mounted)
	if err != nil || strings.Join(r.copies, " ") != "/run/mounts/m1" || strings.Join(r.verbs, " ") != "cp create" {
		t.Errorf("%v %q %q", err, r.copies, r.verbs)
	}
	if text := c.spec.encode("c"); strings.Contains(text, `"copy"`) || !strings.Contains(text, `["rbind","rw"]`) {
		t.Error(text)
	}
	if !strings.Contains(strings.Join(r.Calls, "\n"), "mkdir /run/mounts/m3 755") {
		t.Errorf("%q", r.Calls)
	}
	r = ours("echo cp: write error: No space left on device >&2; exit 1")
	_, err = r.create("c", mounted)
	if err == nil || err.Error() != "filling what is mounted at /data: busybox: cp: write error: No space left on device" {
		t.Error(err)
	}
	if _, err := r.Find("c"); wire.CodeOf(err) != wire.SystemNotFound {
		t.Error("the name is still taken")
	}
}

func TestOnlyAFolderOfTheMachineCanBeFilled(t *testing.T) {
	r := newRig(t)
	_, err := r.create("c", `{"process":{"args":["x"]},"root":{"path":"rootfs"},"mounts":[{"destination":"/a","source":"../x","options":["copy"]}]}`)
	if wire.CodeOf(err) != wire.InvalidArg || !strings.Contains(err.Error(), "mount /a: the option copy is for a folder of the utility VM, not '../x'") {
		t.Error(err)
	}
}

func TestAContainerThatIsKilledIsDeletedOnceItHasEnded(t *testing.T) {
	r := newRig(t)
	r.deaf = true
	c, err := r.create("c", simple)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Shutdown(c, false); err != nil { // before it was started
		t.Fatal(err)
	}
	if err := r.delete(c); err != nil {
		t.Fatal(err)
	}
	if len(r.notices) != 0 || c.exit != wire.ForcedExit || c.told {
		t.Errorf("%+v %s", r.notices, c.exit)
	}
	r.deaf = false
	r.TellEnd(c, r.tell) // another bridge hears of it
	r.TellEnd(c, r.tell)
	if len(r.notices) != 1 {
		t.Errorf("told %d times", len(r.notices))
	}
}

func TestWhatCanBeAskedInWhichState(t *testing.T) {
	r := newRig(t)
	ask := map[string]func(*Container) error{
		"start":    func(c *Container) error { _, err := r.start(c); return err },
		"exec":     func(c *Container) error { _, err := r.exec(c); return err },
		"pause":    func(c *Container) error { return r.do(func(done func(error)) { r.Pause(c, true, done) }) },
		"resume":   func(c *Container) error { return r.do(func(done func(error)) { r.Pause(c, false, done) }) },
		"update":   func(c *Container) error { return r.do(func(done func(error)) { r.Update(c, "{}", done) }) },
		"shutdown": func(c *Container) error { return r.Shutdown(c, true) },
		"delete":   func(c *Container) error { return r.delete(c) },
		"read":     func(c *Container) error { return c.Readable() },
	}
	possible := map[State]string{
		Creating: "", Created: "start update shutdown read", Starting: "shutdown read", Running: "exec pause resume update shutdown read",
		Switching: "shutdown read", Paused: "pause resume update shutdown read", Stopped: "delete read", Deleting: "read",
	}
	for state, list := range possible {
		for what, of := range ask {
			r.script["create"] = `sleep 60 & echo $! >"$1"`
			c, err := r.create("c", simple)
			if err != nil {
				t.Fatal(err)
			}
			c.state, c.over = state, true
			if can := strings.Contains(" "+list+" ", " "+what+" "); (of(c) == nil) != can {
				t.Errorf("%s of a container that is %s: possible %v, want %v", what, state, !can, can)
			}
			delete(r.byID, "c")
			_ = r.Kill(c.first.PID(), 9)
		}
	}
}

func TestWithHooksForItCrunItselfStartsAndDeletes(t *testing.T) {
	r := newRig(t)
	c, err := r.create("c", `{"process":{"args":["x"]},"root":{"path":"rootfs"},"hooks":{"poststart":[{"path":"/x"}],"poststop":[{"path":"/x"}]}}`)
	if err == nil {
		_, err = r.start(c)
	}
	if err == nil {
		err = r.Shutdown(c, false)
	}
	if err == nil {
		err = r.delete(c)
	}
	if got := strings.Join(r.verbs, " "); err != nil || got != "create start delete" {
		t.Errorf("crun %s: %v", got, err)
	}
}

func TestWithoutANamespaceForProcessesAllOthersAreKilledAtTheEnd(t *testing.T) {
	r := newRig(t)
	c, err := r.create("c", `{"process":{"args":["x"]},"root":{"path":"rootfs"}}`)
	if err == nil {
		err = r.Shutdown(c, false)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.wait("c", c.first.PID())
	if last := r.Calls[len(r.Calls)-1]; last != "write /sys/fs/cgroup/containers/c/cgroup.kill 1" {
		t.Errorf("%q", r.Calls)
	}
}

func TestASignalToTheFirstProcessAndItsGroupReachesAll(t *testing.T) {
	r := newRig(t)
	c, err := r.create("c", simple)
	if err != nil {
		t.Fatal(err)
	}
	other, err := sys.Linux{}.Spawn(&sys.Command{Path: "/bin/sleep", Args: []string{"sleep", "60"}, Dir: "/", Files: [3]int{0, 1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	r.Files["/sys/fs/cgroup/containers/c/below/cgroup.procs"] = strings.Join([]string{strconv.Itoa(other.PID), "0", ""}, "\n")
	if got := r.Members(c); len(got) != 0 {
		t.Errorf("members of a group whose list cannot be read: %v", got)
	}
	r.Files["/sys/fs/cgroup/containers/c/cgroup.procs"] = strconv.Itoa(c.first.PID()) + "\n"
	if got := r.Members(c); len(got) != 2 {
		t.Errorf("members %v", got)
	}
	if err := r.Signal(c, uint32(c.first.PID()), 9, true); err != nil {
		t.Fatal(err)
	}
	if code := r.wait("c", c.first.PID()); code != 137 {
		t.Error(code)
	}
	var status syscall.WaitStatus
	for n, _ := syscall.Wait4(other.PID, &status, 0, nil); n == other.PID && !status.Signaled(); {
		t.Error("the other was not killed")
	}
}

func TestAMachineWithOldControlGroupsHasNoContainers(t *testing.T) {
	r := newRig(t)
	delete(r.Files, "/sys/fs/cgroup/cgroup.controllers")
	if _, err := r.create("c", simple); wire.CodeOf(err) != wire.NotImpl || !strings.Contains(err.Error(), "uvm.cgroup=1") {
		t.Error(err)
	}
}

func TestWhatCrunNeverComesBackFromIsEnded(t *testing.T) {
	if err := failure("crun create", 137, ""); err.Error() != "crun create: did not end within 120 s, and was killed; " {
		t.Error(err)
	}
}
