package session

import (
	"strconv"

	"utilityvm/agent/internal/relay"
	"utilityvm/agent/internal/sys"
)

// Program is what serves GCS in the agent's place: its words, and the ports that its standard streams are connected to, 0
// for a stream that stays on the console.
type Program struct {
	Argv  []string
	Ports [3]uint32
}

// environment is what a program gets that the kernel's command line names.
var environment = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "TERM=linux"}

// dials reports whether one of the program's standard streams is connected to port. Without a program nothing is.
func (p *Program) dials(port uint32) bool {
	if p == nil || port == 0 {
		return false
	}
	return p.Ports[0] == port || p.Ports[1] == port || p.Ports[2] == port
}

// launch starts the program, once, when the host listens on the ports of its streams. The machine ends with it.
func (s *Session) launch() {
	p := s.options.Program
	for _, port := range p.Ports {
		if s.started || port != 0 && !s.heard[port] {
			return
		}
	}
	s.started = true
	if err := s.start(p); err != nil {
		s.loop.Stop(&Failure{"program " + p.Argv[0], err})
	}
}

// start does what the original's vsockexec does: each port is dialled once, whichever of the streams it is for.
func (s *Session) start(p *Program) error {
	c := &sys.Command{Path: p.Argv[0], Args: p.Argv, Env: environment, Dir: "/", Files: [3]int{0, 1, 2}}
	theirs := make(map[uint32]int)
	defer func() {
		for _, fd := range theirs {
			sys.Close(fd)
		}
	}()
	for i, port := range p.Ports {
		if port == 0 {
			continue
		}
		if _, dialled := theirs[port]; !dialled {
			ours, fd, err := sys.SocketPair()
			if err != nil {
				return err
			}
			theirs[port] = fd
			relay.Join(s.loop, s.socket, ours, port)
		}
		c.Files[i] = theirs[port]
	}
	_, err := s.processes.Launch(c, func(code int) { s.programEnded(p, code) })
	return err
}

func (s *Session) programEnded(p *Program, code int) {
	if code == 0 {
		s.powerOff(true)
		return
	}
	s.kernel.Sync()
	s.loop.Stop(&Failure{"program " + p.Argv[0], exitCode(code)})
}

type exitCode int

func (e exitCode) Error() string { return "ended with exit code " + strconv.Itoa(int(e)) }
