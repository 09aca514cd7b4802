package process

import (
	"syscall"

	"utilityvm/agent/internal/loop"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// Spec says what to start. Args[0] names the program.
type Spec struct {
	Args          []string
	Env           []string
	Dir           string
	User          string
	Console       bool
	Height, Width uint16
}

// files are the descriptors of one process to be: ours to relay, and the child's, which are closed after the start.
type files struct {
	ours   [3]int
	child  [3]int
	opened []int
}

func (f *files) add(fds ...int) { f.opened = append(f.opened, fds...) }

// closeAll closes what was opened; with started false ours as well.
func (f *files) closeAll(started bool) {
	for _, fd := range f.opened {
		if started && (fd == f.ours[0] || fd == f.ours[1] || fd == f.ours[2]) {
			continue
		}
		sys.Close(fd)
	}
}

// Wanted says which standard streams a process has: input, output and errors.
type Wanted [3]bool

// Wants returns which streams the host has asked for.
func (s *Stdio) Wants() Wanted {
	return Wanted{s.in.stream != nil, s.out.stream != nil, s.err.stream != nil}
}

// open makes pipes for the streams that are wanted, and /dev/null for the others.
func (f *files) open(wanted Wanted, null int) (err error) {
	for i, want := range wanted {
		f.ours[i], f.child[i] = -1, null
		if !want {
			continue
		}
		if f.ours[i], f.child[i], err = sys.Pipe(i != 0); err != nil {
			f.ours[i] = -1
			return err
		}
		f.add(f.ours[i], f.child[i])
	}
	return nil
}

// give makes the child's streams uid's, who may then open them by their names: /dev/stdout, the terminal's own.
func (f *files) give(uid uint32, null int) {
	for _, fd := range f.child {
		if fd != null {
			sys.Own(fd, uid)
		}
	}
}

// openConsole makes a terminal, which is all three streams.
func (f *files) openConsole(spec *Spec) error {
	ours, theirs, err := sys.Terminal()
	if err != nil {
		return err
	}
	f.add(ours, theirs)
	f.ours, f.child = [3]int{ours, ours, -1}, [3]int{theirs, theirs, theirs}
	if spec.Height == 0 && spec.Width == 0 {
		return nil
	}
	return sys.Resize(ours, spec.Height, spec.Width)
}

// spawn starts the process and returns it with our ends of its streams.
func (t *Table) spawn(spec *Spec, stdio *Stdio) (child sys.Child, f *files, err error) {
	f = &files{}
	open := func() error { return f.open(stdio.Wants(), t.null) }
	if spec.Console {
		open = func() error { return f.openConsole(spec) }
	}
	if err = open(); err == nil {
		child, err = t.start(spec, f)
	}
	f.closeAll(err == nil)
	return child, f, err
}

func (t *Table) start(spec *Spec, f *files) (sys.Child, error) {
	user, err := t.users.Find(spec.User)
	if err != nil {
		return sys.Child{}, err
	}
	if user != nil {
		f.give(user.UID, t.null)
	}
	path, err := lookPath(t.kernel, spec)
	if err != nil {
		return sys.Child{}, t.explain(spec, path, err)
	}
	dir := spec.Dir
	if dir == "" {
		dir = "/"
	}
	child, err := t.kernel.Spawn(&sys.Command{
		Path: path, Args: spec.Args, Env: spec.Env, Dir: dir, Files: f.child, Console: spec.Console, User: user,
	})
	if err != nil {
		return sys.Child{}, t.explain(spec, path, err)
	}
	return child, nil
}

// attach connects our ends of the streams to the host's.
func (s *Stdio) attach(f *files, console bool) {
	s.running = true
	watch := func(fd int, events uint32, source loop.Source) {
		if err := s.loop.Watch(fd, events, source); err != nil {
			s.loop.Stop(err)
		}
	}
	if console {
		s.attachConsole(f.ours[0], watch)
		return
	}
	if fd := f.ours[0]; fd >= 0 && s.in.lost {
		sys.Close(fd)
	} else if fd >= 0 {
		watch(fd, sys.Out, s.in)
		s.in.attach(fd)
	}
	for i, o := range []*output{s.out, s.err} {
		if fd := f.ours[i+1]; fd >= 0 && o.lost {
			sys.Close(fd)
		} else if fd >= 0 {
			o.attach(fd)
			watch(fd, sys.In, o)
		}
	}
}

// attachConsole gives both directions the terminal; the output owns it, since output may follow the input's end.
func (s *Stdio) attachConsole(fd int, watch func(int, uint32, loop.Source)) {
	if s.out.lost || s.in.lost {
		sys.Close(fd)
		return
	}
	s.out.attach(fd)
	s.out.hung = s.in.close
	s.in.shared = true
	watch(fd, sys.In|sys.Out, loop.SourceFunc(func(events uint32) {
		if events&sys.Out != 0 {
			s.in.flow()
		}
		s.out.Ready(events)
	}))
	if s.in.stream != nil {
		s.in.attach(fd)
	}
}

// explain gives a failed start its HRESULT and names what is missing; path is the program's, "" when it was not found.
func (t *Table) explain(spec *Spec, path string, err error) error {
	subject, code := spec.Args[0], codeOf(err)
	if spec.Dir != "" && path != "" && path[0] != '/' {
		path = spec.Dir + "/" + path
	}
	if err == syscall.ENOENT && path != "" && t.kernel.Executable(path) == nil {
		code = wire.LoaderNotFound
	}
	if spec.Dir != "" {
		if _, why := t.kernel.ReadDir(spec.Dir); why != nil {
			subject, code, err = "working directory "+spec.Dir, wire.PathNotFound, why
		}
	}
	return &wire.Error{Code: code, Text: "failed to call Start for external process: " + subject, Cause: err}
}
