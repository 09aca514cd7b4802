// Package share connects the kernel's mounts of the host's folders with the host, in a process and on a carrier of their own.
//
// A program that copies from a shared file into a pipe holds the pipe's lock until the host has answered (splice), and one
// that is started from a share keeps who starts it waiting. So whoever carries the host's answers must do neither: it may not
// be the loop that reads programs' pipes and starts programs.
package share

import (
	"syscall"

	"utilityvm/agent/internal/hvsocket"
	"utilityvm/agent/internal/loop"
	"utilityvm/agent/internal/sys"
)

const (
	// PortName is the name of the virtio-serial port that carries connections to shares.
	PortName = "org.utilityvm.shares"
	// Argument makes the agent's program the process that is described above.
	Argument = "-shares"

	// maxWait is how long a connection waits for the host to listen, in milliseconds.
	maxWait = 10_000
	// maxWaiting bounds the connections that do.
	maxWaiting = 64
)

// waiting is a connection whose port the host does not listen on yet.
type waiting struct {
	port  uint32
	fd    int
	timer *loop.Timer
}

// server is the process: it dials for the agent, which hands it sockets on control.
type server struct {
	loop    *loop.Loop
	socket  *hvsocket.Socket
	control int
	waiting []*waiting
}

// Serve dials ports of the host on the carrier, for sockets that come on control, until that ends.
func Serve(carrier, control int, endless bool) error {
	l, err := loop.New()
	if err != nil {
		return err
	}
	s := &server{loop: l, control: control}
	if s.socket, err = hvsocket.New(l, carrier, endless, s); err != nil {
		return err
	}
	l.Serve(s.socket, func() bool { return false })
	if err := l.Watch(control, sys.In, s); err != nil {
		return err
	}
	return l.Run()
}

// Reset implements hvsocket.Owner.
func (s *server) Reset() {}

// Listening implements hvsocket.Owner.
func (s *server) Listening(port, _ uint32) {
	var rest []*waiting
	for _, w := range s.waiting {
		if w.port != port {
			rest = append(rest, w)
			continue
		}
		s.loop.Cancel(w.timer)
		start(s.loop, s.socket, w.port, w.fd)
	}
	s.waiting = rest
}

// Silent implements hvsocket.Owner. Connections that there are go on.
func (s *server) Silent(uint32) {}

// Saved implements hvsocket.Owner. No connection outlives its host.
func (s *server) Saved() {}

// Ready implements loop.Source: sockets have come, or the agent is gone.
func (s *server) Ready(uint32) {
	for {
		port, fd, err := sys.ReceiveFd(s.control)
		switch {
		case err == sys.Again:
			return
		case err != nil || fd < 0:
			s.loop.Stop(nil)
			return
		}
		s.connect(port, fd)
	}
}

func (s *server) connect(port uint32, fd int) {
	if s.socket.Promised(port) {
		start(s.loop, s.socket, port, fd)
		return
	}
	if len(s.waiting) >= maxWaiting {
		sys.Close(fd)
		return
	}
	// Which of the host's words on two carriers comes first nobody can say.
	w := &waiting{port: port, fd: fd}
	w.timer = s.loop.After(maxWait, func() { s.giveUp(w) })
	s.waiting = append(s.waiting, w)
}

func (s *server) giveUp(given *waiting) {
	for i, w := range s.waiting {
		if w == given {
			s.waiting = append(s.waiting[:i], s.waiting[i+1:]...)
			sys.Close(w.fd)
			return
		}
	}
}

// Client is the agent's side: it starts the process when it is first needed, and again when it has ended.
type Client struct {
	kernel  sys.Kernel
	control int // -1 while there is no process
}

// NewClient returns a client that starts its process by kernel.
func NewClient(kernel sys.Kernel) *Client { return &Client{kernel: kernel, control: -1} }

// Connect returns a socket that is connected with a port of the host, or will be: until then what is written waits. It
// ends when the host refuses.
func (c *Client) Connect(port uint32) (fd int, err error) {
	ours, theirs, err := sys.LocalPair(syscall.SOCK_STREAM)
	if err != nil {
		return -1, err
	}
	if err := c.send(port, theirs); err != nil {
		sys.Close(ours)
		sys.Close(theirs)
		return -1, err
	}
	sys.Close(theirs)
	return ours, nil
}

func (c *Client) send(port uint32, fd int) error {
	if c.control >= 0 && sys.SendFd(c.control, port, fd) == nil {
		return nil
	}
	if c.control >= 0 {
		sys.Close(c.control)
		c.control = -1
	}
	if err := c.start(); err != nil {
		return err
	}
	return sys.SendFd(c.control, port, fd)
}

func (c *Client) start() error {
	ours, theirs, err := sys.LocalPair(syscall.SOCK_SEQPACKET)
	if err != nil {
		return err
	}
	defer sys.Close(theirs)
	child, err := c.kernel.Spawn(&sys.Command{
		Path: "/proc/self/exe", Args: []string{"shares", Argument}, Dir: "/", Files: [3]int{theirs, 1, 2},
		Env: []string{"GODEBUG=asyncpreemptoff=1"},
	})
	if err != nil {
		sys.Close(ours)
		return err
	}
	sys.Close(child.Event) // it is reaped as an orphan is
	c.control = ours
	return nil
}
