// Package gcs answers the host's requests (protocol/SPEC.md sections 5 and 6): a table from message type to handler, and
// one file a handler.
package gcs

import (
	"utilityvm/agent/internal/container"
	"utilityvm/agent/internal/hvsocket"
	"utilityvm/agent/internal/logs"
	"utilityvm/agent/internal/loop"
	nets "utilityvm/agent/internal/network"
	"utilityvm/agent/internal/process"
	"utilityvm/agent/internal/share"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// Port is the host's port for the bridge.
const Port = 0x40000000

// maxAnswers bounds the answers that wait for the host, in bytes; beyond it no requests are read.
const maxAnswers = 256 * 1024

// Machine is what requests act on.
type Machine struct {
	Kernel    sys.Kernel
	Loop      *loop.Loop
	Dialler   process.Dialler
	Processes *process.Table
	Log       *logs.Logger
	PowerOff  func(sync bool)
	Boot      wire.BootTimes
	Shares    *share.Client
	// Containers are those of the machine.
	Containers *container.Table
	Networks   nets.Table // network namespaces

	directories map[string]bool // mount points of the host's folders
	disks       loop.Once       // the driver of disks is loaded
}

// call is one request and where its answer goes.
type call struct {
	bridge    *Bridge
	kind      wire.MessageType
	id        uint64
	activity  string
	body      []byte               // valid until the handler returns
	container *container.Container // nil when the machine itself is meant
}

type handler func(*call)

var beforeNegotiation = map[wire.MessageType]handler{
	wire.NegotiateProtocol: negotiate,
}

var afterNegotiation = map[wire.MessageType]handler{
	wire.Create:               create,
	wire.Start:                start,
	wire.ExecuteProcess:       execute,
	wire.WaitForProcess:       wait,
	wire.SignalProcess:        signal,
	wire.ResizeConsole:        resize,
	wire.GetProperties:        properties,
	wire.ModifySettings:       modify,
	wire.DumpStacks:           dumpStacks,
	wire.ShutdownGraceful:     shutdownGraceful,
	wire.ShutdownForced:       shutdownForced,
	wire.DeleteContainerState: deleteState,
	wire.AttachProcess:        attach,
}

// Bridge serves one connection of the host, from negotiation to its end. It is the user of its stream.
type Bridge struct {
	machine  *Machine
	stream   *hvsocket.Stream
	handlers map[wire.MessageType]handler
	frames   wire.FrameReader
	answers  []byte
	waiters  map[*process.Waiter]struct{}
	closed   bool
}

// Dial connects a new bridge, which lives as long as its stream.
func Dial(m *Machine) {
	b := &Bridge{machine: m, handlers: beforeNegotiation, waiters: make(map[*process.Waiter]struct{})}
	b.stream = m.Dialler.Dial(Port, b)
}

// Opened implements hvsocket.User.
func (b *Bridge) Opened() {
	b.machine.Log.Write(logs.Debug, "bridge connected")
}

// Receive implements hvsocket.User.
func (b *Bridge) Receive(p []byte) int {
	if len(b.answers) > maxAnswers {
		return 0
	}
	if err := b.frames.Feed(p, b.frame); err != nil {
		b.fail(err.Error())
	}
	return len(p)
}

func (b *Bridge) frame(f wire.Frame) {
	if b.closed {
		return
	}
	if !f.Type.IsRequest() {
		b.fail("the host sent a message that is no request: " + wire.Hex(uint32(f.Type)))
		return
	}
	c := &call{bridge: b, kind: f.Type, id: f.ID, body: f.Body}
	handle, known := b.handlers[f.Type]
	if !known {
		c.refuseType()
		return
	}
	handle(c)
}

// refuseType answers a message without a handler.
func (c *call) refuseType() {
	if q, err := wire.ParseRequest(c.body); err == nil {
		c.activity = q.ActivityID
	}
	c.fail(&wire.Error{Code: wire.NotImpl, Text: "bridge: function not supported, header type: " + wire.Hex(uint32(c.kind))})
}

// admit takes note of what every request carries and finds whom it is for: a container, or the machine itself. Unless it returns true the
// call has been answered.
func (c *call) admit(q *wire.Request, err error) bool {
	c.activity = q.ActivityID
	if err == nil && q.ContainerID != wire.NullGUID {
		c.container, err = c.bridge.machine.Containers.Find(q.ContainerID)
	}
	if err != nil {
		c.fail(err)
	}
	return err == nil
}

// admitMachine admits what can only be asked of the machine.
func (c *call) admitMachine(q *wire.Request, err error) bool {
	if !c.admit(q, err) {
		return false
	}
	if c.container != nil {
		c.fail(&wire.Error{Code: wire.NotImpl, Text: "this can be asked of the utility VM only, not of a container"})
	}
	return c.container == nil
}

// admitInside admits what can only be asked of a container.
func (c *call) admitInside(q *wire.Request, err error) bool {
	if !c.admit(q, err) {
		return false
	}
	if c.container == nil {
		c.fail(&wire.Error{Code: wire.NotImpl, Text: "this can be asked of a container only, not of the utility VM"})
	}
	return c.container != nil
}

// owner is who has the processes that the request is about.
func (c *call) owner() string {
	if c.container == nil {
		return wire.NullGUID
	}
	return c.container.ID
}

func (c *call) fail(err error) { c.answer(wire.Response{Err: err}) }

// answer sends the response, unless the bridge is gone.
func (c *call) answer(s wire.Response) {
	b := c.bridge
	if b.closed {
		return
	}
	if s.Err != nil {
		b.machine.Log.Write(logs.Debug, "request failed",
			logs.Field{Key: "type", Value: wire.Hex(uint32(c.kind))}, logs.Field{Key: "error", Value: s.Err.Error()})
	}
	b.answers = wire.AppendFrame(b.answers, c.kind.Response(), c.id, func(out []byte) []byte {
		return wire.AppendResponse(out, s, c.activity)
	})
	b.stream.Ready()
}

// tell sends the notification of a container's end, and reports whether it did.
func (b *Bridge) tell(n wire.Notification) bool {
	if b.closed {
		return false
	}
	b.answers = wire.AppendFrame(b.answers, wire.Exited, 0, func(out []byte) []byte { return wire.AppendNotification(out, n) })
	b.stream.Ready()
	return true
}

// Fill implements hvsocket.User.
func (b *Bridge) Fill(p []byte) (int, bool) {
	n := copy(p, b.answers)
	b.answers = b.answers[:copy(b.answers, b.answers[n:])]
	if n == 0 {
		b.stream.Resume() // requests that were left while too many answers waited
	}
	return n, n > 0
}

// Shut implements hvsocket.User.
func (b *Bridge) Shut(sends, receives bool) { b.close() }

// Closed implements hvsocket.User.
func (b *Bridge) Closed() { b.close() }

func (b *Bridge) fail(why string) {
	b.machine.Log.Write(logs.Error, "bridge failed", logs.Field{Key: "error", Value: why})
	b.close()
}

// close ends the bridge. Processes go on; nobody waits for them any more.
func (b *Bridge) close() {
	if b.closed {
		return
	}
	b.closed = true
	for w := range b.waiters {
		b.machine.Processes.Cancel(w)
	}
	b.stream.Shutdown(wire.ShutBoth)
}
