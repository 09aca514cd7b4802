package process

import (
	"errors"
	"reflect"
	"syscall"
	"testing"

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
		syscall.ENOEXEC: wire.AccessDenied, syscall.E2BIG: wire.InvalidArg, syscall.ENOMEM: wire.Fail, syscall.EAGAIN: wire.Fail,
	} {
		k := &systest.Kernel{Fail: map[string]error{"spawn /p": errno}}
		table, l := newTable(t, k)
		_, err := table.Start(&Spec{Args: []string{"/p"}}, Connect(l, nil, Ports{}))
		if wire.CodeOf(err) != code || !errors.Is(err, errno) {
			t.Errorf("%v: %#x %v", errno, wire.CodeOf(err), err)
		}
	}
}
