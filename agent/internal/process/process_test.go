package process

import (
	"errors"
	"reflect"
	"syscall"
	"testing"
	"time"

	"utilityvm/agent/internal/hvsocket"
	"utilityvm/agent/internal/loop"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/internal/sys/systest"
	"utilityvm/agent/wire"
)

func TestProgramsAreLookedUp(t *testing.T) {
	k := &systest.Kernel{Files: map[string]string{
		"/bin/ls": "program", "/usr/local/bin/ls": "text", "/opt/x": "program", "/w/bin/y": "program", "/w/z": "program", "/bin/text": "text",
	}}
	for _, c := range []struct {
		name, path, dir, want string
		err                   error
	}{
		{"ls", "", "", "/bin/ls", nil},
		{"/anything", "", "", "/anything", nil},
		{"./rel", "", "", "./rel", nil},
		{"x", "PATH=/bin:/opt", "", "/opt/x", nil},
		{"y", "PATH=bin", "/w", "/w/bin/y", nil},
		{"z", "PATH=", "/w", "/w/z", nil},
		{"none", "", "", "", syscall.ENOENT},
		{"text", "", "", "", syscall.EACCES},
		{"ls", "PATH=/usr/local/bin", "", "", syscall.EACCES},
	} {
		spec := &Spec{Args: []string{c.name}, Dir: c.dir}
		if c.path != "" {
			spec.Env = []string{"A=1", c.path}
		}
		if got, err := lookPath(k, spec); got != c.want || err != c.err {
			t.Errorf("%s in %s: %q %v", c.name, c.path, got, err)
		}
	}
}

func newTable(t *testing.T, k sys.Kernel) (*Table, *loop.Loop) {
	t.Helper()
	l, err := loop.New()
	if err != nil {
		t.Fatal(err)
	}
	table, err := NewTable(l, k)
	if err != nil {
		t.Fatal(err)
	}
	return table, l
}

func TestWhatIsAskedOfTheKernel(t *testing.T) {
	event, other, err := sys.Pipe(true)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close(other)
	k := &systest.Kernel{Files: map[string]string{"/bin/prog": "program", "/etc/passwd": "ann:x:1000:100::/:\n"}, Child: sys.Child{PID: 4242, Event: event}}
	table, l := newTable(t, k)
	pid, err := table.Start(&Spec{Args: []string{"prog", "arg"}, Env: []string{"PATH=/bin", "A=1"}, User: "4242:6"}, Connect(l, nil, Ports{}))
	if err != nil || pid != 4242 || len(k.Spawned) != 1 {
		t.Fatalf("%d %v %+v", pid, err, k.Spawned)
	}
	null := table.null
	want := sys.Command{Path: "/bin/prog", Args: []string{"prog", "arg"}, Env: []string{"PATH=/bin", "A=1"}, Dir: "/",
		Files: [3]int{null, null, null}, User: &sys.Credential{UID: 4242, GID: 6}}
	if !reflect.DeepEqual(k.Spawned[0], want) {
		t.Errorf("%+v, want %+v", k.Spawned[0], want)
	}
	if err := table.Signal(wire.NullGUID, 4242, 15, false); err != nil || k.Calls[len(k.Calls)-1] != "kill 4242 15" {
		t.Errorf("%v %q", err, k.Calls)
	}
	if err := table.Signal(wire.NullGUID, 4242, 15, true); err != nil || k.Calls[len(k.Calls)-1] != "kill -4242 15" {
		t.Errorf("%v %q", err, k.Calls)
	}
	k.Fail = map[string]error{"kill 4242 9": syscall.EPERM}
	if err := table.Signal(wire.NullGUID, 4242, 0, false); wire.CodeOf(err) != wire.Fail || !errors.Is(err, syscall.EPERM) {
		t.Error(err)
	}
}

func TestAStartThatFailsTellsItsKind(t *testing.T) {
	for errno, code := range map[syscall.Errno]wire.HResult{
		syscall.ENOENT: wire.FileNotFound, syscall.ENOTDIR: wire.FileNotFound, syscall.EACCES: wire.AccessDenied,
		syscall.ENOEXEC: wire.BadFormat, syscall.E2BIG: wire.InvalidArg, syscall.ENOMEM: wire.Fail, syscall.EAGAIN: wire.Fail,
	} {
		k := &systest.Kernel{Fail: map[string]error{"spawn /p": errno}}
		table, l := newTable(t, k)
		_, err := table.Start(&Spec{Args: []string{"/p"}}, Connect(l, nil, Ports{}))
		if wire.CodeOf(err) != code || !errors.Is(err, errno) {
			t.Errorf("%v: %#x %v", errno, wire.CodeOf(err), err)
		}
	}
}

func TestAProgramWhoseLoaderIsMissingIsToldApartFromAMissingOne(t *testing.T) {
	for _, c := range []struct {
		dir, name string
		code      wire.HResult
	}{
		{"", "/bin/x", wire.LoaderNotFound}, {"/bin", "./x", wire.LoaderNotFound}, {"", "/bin/y", wire.FileNotFound}, {"/nowhere", "/bin/x", wire.PathNotFound},
	} {
		k := &systest.Kernel{Files: map[string]string{"/bin/x": "program", "/bin/./x": "program"}, Fail: map[string]error{"spawn " + c.name: syscall.ENOENT}}
		table, l := newTable(t, k)
		_, err := table.Start(&Spec{Args: []string{c.name}, Dir: c.dir}, Connect(l, nil, Ports{}))
		if wire.CodeOf(err) != c.code {
			t.Errorf("%+v: %#x %v", c, wire.CodeOf(err), err)
		}
	}
}

func TestTheGroupOfAnAdoptedProcessIsThatOfItsStarter(t *testing.T) {
	for _, c := range []struct {
		groups map[int]int
		want   string
	}{
		{map[int]int{300: 299}, "kill -299 9"},
		{nil, "kill -300 9"},
		{map[int]int{300: 1}, "kill -300 9"}, // the agent's, and "kill -1" would reach everybody
	} {
		event, other, err := sys.Pipe(true)
		if err != nil {
			t.Fatal(err)
		}
		k := &systest.Kernel{Child: sys.Child{Event: event}, Groups: c.groups}
		table, _ := newTable(t, k)
		if _, err := table.Adopt("c1", 300, nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := table.Signal("c1", 300, 9, true); err != nil || k.Calls[len(k.Calls)-1] != c.want {
			t.Errorf("%v %q, want %s", err, k.Calls, c.want)
		}
		sys.Close(other)
	}
}

// promised is a host whose promise of every port is known.
type promised struct{ users []hvsocket.User }

func (p *promised) Promised(uint32) bool { return true }

func (p *promised) Dial(_ uint32, user hvsocket.User) *hvsocket.Stream {
	p.users = append(p.users, user)
	return nil
}

func TestStreamsThatTheHostGivesUpAreAnsweredForOnceAndLostToTheProcess(t *testing.T) {
	_, l := newTable(t, &systest.Kernel{})
	host := &promised{}
	stdio := Connect(l, host, Ports{In: 1, Out: 2, Err: 3})
	var told []error
	stdio.Then(func(err error) { told = append(told, err) })
	host.users[1].Closed() // while another program starts the process
	if len(told) != 1 || told[0] != nil {
		t.Fatalf("%v", told)
	}
	f := files{}
	for i := range f.ours {
		ours, theirs, err := sys.Pipe(true)
		if err != nil {
			t.Fatal(err)
		}
		defer sys.Close(theirs)
		f.ours[i] = ours
	}
	stdio.attach(&f, false)
	for _, fd := range f.ours {
		if err := syscall.Fstat(fd, &syscall.Stat_t{}); err != syscall.EBADF {
			t.Errorf("descriptor %d is open: %v", fd, err)
		}
	}
}

func TestAProcessThatIsForgottenBeforeAnybodyAttachedItGivesItsStreamsUp(t *testing.T) {
	table, l := newTable(t, &systest.Kernel{})
	stdio := unconnected(l)
	stdio.running = true
	var ours []int
	for i, fd := range []*int{&stdio.in.fd, &stdio.out.fd, &stdio.err.fd} {
		read, theirs, err := sys.Pipe(i != 0)
		if err != nil {
			t.Fatal(err)
		}
		defer sys.Close(theirs)
		if err := l.Watch(read, sys.In, stdio.out); err != nil {
			t.Fatal(err)
		}
		*fd, ours = read, append(ours, read)
	}
	p := &Process{pid: 7, owner: wire.NullGUID, event: -1, stdio: stdio}
	table.byPID[7] = p
	table.Part()
	stdio.out.parked, stdio.err.parked = true, true
	table.exited(p, 3)
	if list := table.Detached(); len(list) != 1 || !list[0].Ended {
		t.Fatalf("%+v", list)
	}
	for range [maxEnded]struct{}{} {
		table.tell(&Process{pid: 8, stdio: unconnected(l)})
	}
	if list := table.Detached(); len(list) != 0 {
		t.Errorf("%+v", list)
	}
	for _, fd := range ours {
		if err := syscall.Fstat(fd, &syscall.Stat_t{}); err != syscall.EBADF {
			t.Errorf("descriptor %d is open: %v", fd, err)
		}
	}
}

// quiet has nothing to do between events.
type quiet struct{}

func (quiet) Work() int { return loop.Forever }

func TestAnOutputThatNobodyWantsLeavesOthersTheirTurn(t *testing.T) {
	_, l := newTable(t, &systest.Kernel{})
	l.Serve(quiet{}, func() bool { return false })
	stdio := unconnected(l)
	zeros, errno := syscall.Open("/dev/zero", syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != nil {
		t.Fatal(errno)
	}
	stdio.out.attach(zeros) // is never empty
	turned := make(chan struct{})
	l.After(1, func() { l.Stop(nil) })
	go func() {
		stdio.out.Ready(sys.In)
		l.Run()
		close(turned)
	}()
	select {
	case <-turned:
	case <-time.After(10 * time.Second):
		t.Fatal("the loop serves nobody else")
	}
}

func TestAnEndedProcessTakesNotItsNumbersNewOwnerWithIt(t *testing.T) {
	event, _, _ := sys.Pipe(true)
	next, _, _ := sys.Pipe(true)
	k := &systest.Kernel{Child: sys.Child{Event: event}}
	table, _ := newTable(t, k)
	old, err := table.Adopt("c1", 300, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	table.Begin(old)
	table.Wait("c1", 300, wire.NoTimeout, func(int, error) {})
	old.ended = true // its output is still on its way
	k.Child = sys.Child{PID: 300, Event: next}
	code := -1
	if _, err := table.Launch(&sys.Command{Path: "/bin/crun", Args: []string{"crun"}}, func(c int) { code = c }); err != nil {
		t.Fatal(err)
	}
	table.tell(old)
	if p := table.byPID[300]; p == nil || p == old {
		t.Fatal("the new process is not known")
	}
	table.exited(table.byPID[300], 7)
	if code != 7 {
		t.Errorf("%d", code)
	}
}

func TestWhatChildrenWriteAfterTheEndIsNotWaitedFor(t *testing.T) {
	_, l := newTable(t, &systest.Kernel{})
	stdio := unconnected(l)
	read, write, err := sys.Pipe(true)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close(write)
	_ = syscall.SetNonblock(write, true)
	fill := func() {
		for errno := syscall.Errno(0); errno == 0; {
			_, errno = sys.Write(write, make([]byte, 4096))
		}
	}
	stdio.out.attach(read)
	fill()
	done := false
	stdio.drain(func() { done = true })
	for turn := 0; !done; turn++ {
		if turn > 1000 {
			t.Fatal("the end is not told")
		}
		fill()
		stdio.out.Ready(sys.In)
	}
	if queued, ok := sys.Queued(read); queued == 0 || !ok {
		t.Errorf("nothing of the children's was left: %d %v", queued, ok)
	}
}
