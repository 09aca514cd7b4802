// Package session is what the agent does on the guest connection, era after era: entropy, log, bridge
// (protocol/SPEC.md sections 4 and 7).
package session

import (
	"strconv"

	"utilityvm/agent/internal/container"
	"utilityvm/agent/internal/gcs"
	"utilityvm/agent/internal/hvsocket"
	"utilityvm/agent/internal/logs"
	"utilityvm/agent/internal/loop"
	"utilityvm/agent/internal/process"
	"utilityvm/agent/internal/relay"
	"utilityvm/agent/internal/share"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// Options say which ports are dialled besides the bridge's, 0 for none, and what the host is told of the boot.
type Options struct {
	EntropyPort uint32
	LogPort     uint32
	Boot        wire.BootTimes
	Program     *Program // serves GCS instead of the agent
}

// Session is the owner of the guest connection.
type Session struct {
	options   Options
	kernel    sys.Kernel
	loop      *loop.Loop
	socket    *hvsocket.Socket
	log       *logs.Logger
	machine   *gcs.Machine
	relay     *relay.Relay
	processes *process.Table
	started   bool            // the program was
	heard     map[uint32]bool // ports to be dialled that the host listens on
	seeded    bool            // no entropy is missing any more
}

// Failure ends the agent: a step of the boot that went wrong.
type Failure struct {
	What string
	Why  error
}

func (f *Failure) Error() string { return f.What + ": " + f.Why.Error() }

// Unwrap returns the reason.
func (f *Failure) Unwrap() error { return f.Why }

// Run serves the guest connection on the carrier until it fails, ends, or the host asks for power-off. endless is as for
// hvsocket.New. The error is nil after power-off and at the end of the carrier.
func Run(carrier int, endless bool, options Options, log *logs.Logger, kernel sys.Kernel) error {
	l, err := loop.New()
	if err != nil {
		return &Failure{"event loop", err}
	}
	s := &Session{options: options, kernel: kernel, loop: l, log: log, seeded: options.EntropyPort == 0, heard: make(map[uint32]bool)}
	table, err := process.NewTable(l, kernel)
	if err != nil {
		return &Failure{"/dev/null", err}
	}
	defer table.KillAll()
	if s.socket, err = hvsocket.New(l, carrier, endless, s); err != nil {
		return &Failure{"carrier", err}
	}
	s.relay = relay.New(l, kernel, s.socket, s.notRelayed)
	s.processes = table
	s.machine = &gcs.Machine{Kernel: kernel, Loop: l, Dialler: s.socket, Processes: table, Log: log, PowerOff: s.powerOff, Boot: options.Boot,
		Shares: share.NewClient(kernel)}
	s.machine.Containers = container.NewTable(l, kernel, table, &s.machine.Networks)
	l.Serve(s.socket, table.Reap)
	return l.Run()
}

func (s *Session) powerOff(sync bool) {
	if sync {
		s.kernel.Sync()
	}
	s.loop.Stop(nil)
}

// Saved implements hvsocket.Owner: processes and containers go on, for a host that may ask for them.
func (s *Session) Saved() {
	s.processes.Part()
	s.machine.Containers.Part()
}

// Reset implements hvsocket.Owner.
func (s *Session) Reset() {
	s.heard = make(map[uint32]bool)
	s.relay.Reset()
	s.log.Write(logs.Debug, "guest connection begins")
}

// Listening implements hvsocket.Owner. A program in the agent's place dials every port but that of the entropy by AF_VSOCK.
func (s *Session) Listening(port, flags uint32) {
	foreign := s.options.Program
	if flags&wire.Programs != 0 || foreign != nil && port != s.options.EntropyPort && !foreign.dials(port) {
		s.relay.Open(port, flags&wire.Once != 0)
	}
	if port == s.options.EntropyPort || port == s.options.LogPort || port == gcs.Port || foreign.dials(port) {
		s.heard[port] = true
		s.advance()
	}
}

// Silent implements hvsocket.Owner.
func (s *Session) Silent(port uint32) { s.relay.Close(port) }

func (s *Session) notRelayed(port uint32, why error) {
	text := "programs cannot dial port " + strconv.FormatUint(uint64(port), 10) + " of the host by AF_VSOCK"
	if s.options.Program != nil {
		s.kernel.Console(text + ": " + why.Error()) // the log's port is the program's
		return
	}
	s.log.Write(logs.Error, text, logs.Field{Key: "error", Value: why.Error()})
}

// take reports whether port can be dialled, and then not again until the host listens anew.
func (s *Session) take(port uint32) bool {
	heard := port != 0 && s.heard[port]
	delete(s.heard, port)
	return heard
}

// advance dials what can be dialled. At boot entropy comes first, so that no process starts without it.
func (s *Session) advance() {
	if s.take(s.options.EntropyPort) {
		e := &entropy{session: s}
		e.stream = s.socket.Dial(s.options.EntropyPort, e)
	}
	if !s.seeded {
		return
	}
	if s.options.Program != nil {
		s.launch()
		return
	}
	if s.take(s.options.LogPort) {
		s.log.Attach(s.socket.Dial(s.options.LogPort, s.log))
	}
	if s.take(gcs.Port) {
		gcs.Dial(s.machine)
	}
}

// entropy is the user of the stream that brings a seed for the kernel's random numbers.
type entropy struct {
	session *Session
	stream  *hvsocket.Stream
	got     int
}

// Opened implements hvsocket.User.
func (e *entropy) Opened() {}

// Receive implements hvsocket.User.
func (e *entropy) Receive(p []byte) int {
	if err := e.session.kernel.AddEntropy(p); err != nil {
		e.fail(err)
	}
	e.got += len(p)
	return len(p)
}

// Fill implements hvsocket.User.
func (e *entropy) Fill([]byte) (int, bool) { return 0, false }

// Shut implements hvsocket.User.
func (e *entropy) Shut(sends, _ bool) {
	if sends {
		return
	}
	if e.got == 0 {
		e.fail(hvsocket.Error("the host sent no entropy"))
		return
	}
	e.stream.Shutdown(wire.ShutBoth)
	e.session.seeded = true
	e.session.advance()
}

// Closed implements hvsocket.User.
func (e *entropy) Closed() {
	if e.got == 0 {
		e.fail(hvsocket.Error("the host refused the connection"))
	}
}

// fail ends the boot; later, in a clone, it is only told.
func (e *entropy) fail(why error) {
	if e.session.seeded {
		e.session.log.Write(logs.Warning, "no fresh entropy", logs.Field{Key: "error", Value: why.Error()})
		return
	}
	e.session.loop.Stop(&Failure{"entropy", why})
}
