// Package process starts the utility VM's own processes, relays their standard streams and keeps their exit codes
// (protocol/SPEC.md section 6).
package process

import (
	"math"

	"utilityvm/agent/internal/hvsocket"
	"utilityvm/agent/internal/loop"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// Dialler opens streams to the host.
type Dialler interface {
	Dial(port uint32, user hvsocket.User) *hvsocket.Stream
	Promised(port uint32) bool
}

// Ports are the host's ports for the standard streams; 0 for one that is not relayed.
type Ports struct{ In, Out, Err uint32 }

// Stdio are the standard streams of a process, first dialled and then attached to what the process reads and writes.
type Stdio struct {
	loop    *loop.Loop
	in      *input
	out     *output
	err     *output
	waiting int
	done    func(error)
	running bool // the process has not ended
	drained func()
	parted  bool // nobody has it, and it can be attached again
}

// dropsInTurn is how often an output that nobody wants is read before others have their turn: a program may never stop writing.
const dropsInTurn = 16

// unconnected are the streams of a process that has none, or none yet.
func unconnected(l *loop.Loop) *Stdio {
	s := &Stdio{loop: l, in: &input{fd: -1, loop: l}}
	s.out, s.err = &output{fd: -1, stdio: s}, &output{fd: -1, stdio: s}
	return s
}

// drain calls done once all that was written until now is on its way to the host, which may be now.
func (s *Stdio) drain(done func()) {
	s.drained = done
	outputs := []*output{s.out, s.err}
	for _, o := range outputs {
		o.draining, o.rest = o.fd >= 0 && !o.parked, math.MaxInt
	}
	for _, o := range outputs {
		if o.draining {
			o.Ready(0)
		}
		if !o.draining {
			continue
		}
		if queued, ok := sys.Queued(o.fd); ok { // the host takes its time, and children may fill the pipe as long as they live
			o.rest = len(o.first) + queued
		}
	}
	s.settle()
}

func (s *Stdio) settle() {
	if done := s.drained; done != nil && !s.out.draining && !s.err.draining {
		s.drained = nil
		done()
	}
}

// Connect dials the ports. Then says what follows. A stream that the host has promised is not waited for: while the answer to
// its dial comes, the program starts.
func Connect(l *loop.Loop, dialler Dialler, ports Ports) *Stdio {
	s := unconnected(l)
	dial := func(port uint32, e *end, name string, user hvsocket.User) {
		if port != 0 {
			e.opened = func() {}
			if !dialler.Promised(port) {
				s.waiting++
				e.opened = s.opened
			}
			e.refused = func() { s.refused(name) }
			e.stream = dialler.Dial(port, user)
		}
	}
	dial(ports.In, &s.in.end, "stdin", s.in)
	dial(ports.Out, &s.out.end, "stdout", s.out)
	dial(ports.Err, &s.err.end, "stderr", s.err)
	return s
}

// Then calls done once: when all streams are open or sure to be, which may be now, or with an error when the host refused one; the
// others are reset by then. What the host resets later is lost to the process. Call it right after Connect.
func (s *Stdio) Then(done func(error)) {
	if s.done = done; s.waiting == 0 {
		s.begin()
	}
}

func (s *Stdio) opened() {
	if s.waiting--; s.waiting == 0 {
		s.begin()
	}
}

func (s *Stdio) begin() {
	if done := s.done; done != nil {
		s.done = nil
		done(nil)
	}
}

func (s *Stdio) refused(name string) {
	done := s.done
	s.Reset()
	if done != nil {
		done(notConnected(name))
	}
}

func notConnected(stream string) error {
	return &wire.Error{Code: wire.Fail, Text: "failed creating " + stream + " Connection"}
}

// Reset gives the streams up; done is not called any more.
func (s *Stdio) Reset() {
	s.done = nil
	for _, e := range []*end{&s.in.end, &s.out.end, &s.err.end} {
		e.lost = true
		if e.stream != nil {
			e.stream.Reset()
		}
	}
}

// end is what the three streams have in common: the time before they are attached.
type end struct {
	stream  *hvsocket.Stream
	opened  func()
	refused func() // nil once attached
	lost    bool   // gone before it was attached
}

// Opened implements hvsocket.User.
func (e *end) Opened() { e.opened() }

// gone calls refused if the stream was not attached yet.
func (e *end) gone() {
	if e.refused != nil {
		e.refused()
	}
}

// input carries bytes from the host to a process.
type input struct {
	end
	loop   *loop.Loop
	fd     int  // -1 before it is attached and after it is closed
	shared bool // the descriptor is a terminal's, which its output closes
	large  bool // the pipe was enlarged: it had been full once
	closed bool
	left   []byte // of the stream that it has parted from, to be written before what another brings
	last   bool   // the input ends after left
	early  bool   // the input ended before it was attached
}

// attach begins to write to fd.
func (i *input) attach(fd int) {
	i.fd, i.refused = fd, nil
	i.stream.Resume()
	if i.early {
		i.finish()
	}
}

// Ready implements loop.Source.
func (i *input) Ready(events uint32) {
	if events&sys.Err != 0 {
		i.close() // nobody reads any more
	} else {
		i.flow()
	}
}

// Receive implements hvsocket.User.
func (i *input) Receive(p []byte) int {
	if i.closed {
		return len(p)
	}
	if i.fd < 0 || len(i.left) > 0 {
		return 0
	}
	return i.write(p)
}

// flow goes on where the process was not reading.
func (i *input) flow() {
	for len(i.left) > 0 {
		n := i.write(i.left)
		if n == 0 {
			return
		}
		i.left = i.left[n:]
	}
	if i.last {
		i.close()
	} else if i.stream != nil {
		i.stream.Resume()
	}
}

// write gives bytes to the process and returns how many it took, which is all of them when it reads no more.
func (i *input) write(p []byte) int {
	n, errno := sys.Write(i.fd, p)
	if errno != 0 && errno != sys.Again {
		i.close()
		return len(p)
	}
	if n < len(p) && !i.large {
		i.large = true
		sys.Enlarge(i.fd)
	}
	return n
}

// Fill implements hvsocket.User.
func (i *input) Fill([]byte) (int, bool) { return 0, false }

// Shut implements hvsocket.User.
func (i *input) Shut(sends, _ bool) {
	if sends {
		return
	}
	if i.fd >= 0 {
		i.finish()
	} else {
		i.early = true
	}
}

// finish ends the process's input after what it is still to get.
func (i *input) finish() {
	if i.last = len(i.left) > 0; !i.last {
		i.close()
	}
}

// Closed implements hvsocket.User.
func (i *input) Closed() {
	i.gone()
	i.finish()
}

// close ends the process's input and tells the host.
func (i *input) close() {
	if i.closed {
		return
	}
	i.closed, i.left, i.last = true, nil, false
	if i.fd >= 0 && !i.shared {
		i.loop.Close(i.fd)
	}
	i.fd = -1
	if i.stream != nil {
		i.stream.Shutdown(wire.ShutBoth)
		i.stream.Resume() // drops what was not read
	}
}

// output carries bytes from a process to the host. Without a stream it drops them, or, while it is parked, leaves them where they are.
type output struct {
	end
	stdio *Stdio
	fd    int  // -1 before it is attached and after it is closed
	large bool // the pipe was enlarged: it had held more than was asked for
	hung  func()
	first []byte // was read before it was attached

	later bool // more is to be dropped, when others have had their turn

	parked   bool // nobody has asked for it
	draining bool // what is left in the pipe is waited for
	rest     int  // bytes of that, at most
}

// dry notes that nothing is left in the pipe.
func (o *output) dry() {
	if o.draining {
		o.draining = false
		o.stdio.settle()
	}
}

func (o *output) attach(fd int) {
	o.fd, o.refused = fd, nil
}

// Ready implements loop.Source.
func (o *output) Ready(uint32) {
	switch {
	case o.parked:
		return
	case o.stream != nil:
		o.stream.Ready()
		return
	}
	var dropped [4096]byte
	more := o.fd >= 0
	for n := 0; more && n < dropsInTurn; n++ {
		_, more = o.Fill(dropped[:])
	}
	if more && !o.later {
		o.later = true
		o.stdio.loop.After(0, func() {
			o.later = false
			o.Ready(0)
		})
	}
}

// Fill implements hvsocket.User.
func (o *output) Fill(p []byte) (int, bool) {
	if o.rest <= 0 {
		o.dry()
	}
	if len(o.first) > 0 {
		n := copy(p, o.first)
		o.first, o.rest = o.first[n:], o.rest-n
		return n, true
	}
	if o.fd < 0 {
		return 0, false
	}
	n, errno := sys.Read(o.fd, p)
	switch {
	case errno == sys.Again:
		o.dry()
		return 0, false
	case n > 0:
		o.rest -= n
		if n == len(p) && !o.large {
			o.large = true
			sys.Enlarge(o.fd)
		}
		return n, true
	}
	o.close(wire.ShutSend) // the end; a terminal says EIO
	return 0, false
}

// Receive implements hvsocket.User.
func (o *output) Receive(p []byte) int { return len(p) }

// Shut implements hvsocket.User.
func (o *output) Shut(_, receives bool) {
	if !receives {
		o.close(wire.ShutBoth)
	}
}

// Closed implements hvsocket.User.
func (o *output) Closed() {
	o.gone()
	o.close(wire.ShutBoth)
}

// close gives our end of the pipe or terminal up, which a program that still writes notices, and tells the host.
func (o *output) close(bits uint32) {
	if o.fd >= 0 {
		o.stdio.loop.Close(o.fd)
		o.fd = -1
	}
	o.first = nil
	if o.hung != nil {
		o.hung()
	}
	switch {
	case o.stream == nil:
	case o.stdio.running && bits == wire.ShutSend:
		o.stream.Finish(bits) // the process is about to end as well, as a rule
	default:
		o.stream.Shutdown(bits)
	}
	o.dry()
}
