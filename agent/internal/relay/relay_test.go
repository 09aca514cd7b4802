package relay

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"utilityvm/agent/internal/hvsocket"
	"utilityvm/agent/internal/loop"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/internal/sys/systest"
	"utilityvm/agent/wire"
)

// rig is a relay that runs between a host, which the test is by one end of a socket pair, and programs, which the test is by
// dialling Unix sockets in AF_VSOCK's place.
type rig struct {
	t      *testing.T
	relay  *Relay
	kernel *systest.Kernel
	host   int
	reader *wire.PacketReader
	failed chan string
	names  map[uint32]syscall.Sockaddr
	end    func() // of the relay's loop
}

// Reset, Listening and Silent implement hvsocket.Owner as the session does.
func (r *rig) Reset() { r.relay.Reset() }

func (r *rig) Listening(port, flags uint32) {
	if flags&wire.Programs != 0 {
		r.relay.Open(port, flags&wire.Once != 0)
	}
}

func (r *rig) Silent(port uint32) { r.relay.Close(port) }

func (r *rig) Saved() {}

// newRig returns a running rig whose programs can dial ports once the host has listened on them.
func newRig(t *testing.T, ports ...uint32) *rig { return failingRig(t, nil, ports...) }

// failingRig is one of whose kernel the calls of fail fail.
func failingRig(t *testing.T, fail map[string]error, ports ...uint32) *rig {
	r := &rig{t: t, reader: wire.NewPacketReader(wire.FromGuest), failed: make(chan string, 10), names: map[uint32]syscall.Sockaddr{}}
	r.kernel = &systest.Kernel{Sockets: map[uint32]int{}, Fail: fail, Files: map[string]string{"/etc/utilityvm/modules": "vsock: /v.ko /l.ko\n"}}
	for _, port := range ports {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
		r.must(err)
		r.must(syscall.Bind(fd, &syscall.SockaddrUnix{Name: t.TempDir() + "/s"}))
		r.must(syscall.Listen(fd, 10))
		r.kernel.Sockets[port] = fd
		r.names[port], _ = syscall.Getsockname(fd)
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	r.must(err)
	r.must(syscall.SetNonblock(pair[1], true))
	r.host = pair[0]
	l, err := loop.New()
	r.must(err)
	socket, err := hvsocket.New(l, pair[1], false, r)
	r.must(err)
	r.relay = New(l, r.kernel, socket, func(port uint32, why error) { r.failed <- fmt.Sprint(port, " ", why) })
	l.Serve(socket, func() bool { return false })
	ended := make(chan error)
	go func() { ended <- l.Run() }()
	r.end = func() {
		r.end = func() {}
		r.must(syscall.Shutdown(pair[0], syscall.SHUT_WR))
		r.must(<-ended)
	}
	t.Cleanup(func() {
		r.end()
		syscall.Close(pair[0])
		syscall.Close(pair[1])
	})
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) send(packets ...wire.Packet) {
	var out []byte
	for i := range packets {
		out = wire.AppendPacket(out, &packets[i], wire.FromHost)
	}
	_, err := syscall.Write(r.host, out)
	r.must(err)
}

// expect reads a packet of the agent and holds it to "op srcport->dstport flags payload", the source port counted from the first.
func (r *rig) expect(want string) {
	r.t.Helper()
	for {
		p, ok, err := r.reader.Next()
		r.must(err)
		if ok {
			got := strings.TrimSpace(fmt.Sprintf("%d %d->%d %d %s", p.Op, p.SrcPort-0x80000000, p.DstPort, p.Flags, p.Payload))
			if got != want {
				r.t.Fatalf("got %q, want %q", got, want)
			}
			return
		}
		n, err := syscall.Read(r.host, r.reader.Space())
		r.must(err)
		r.reader.Filled(n)
	}
}

// dial connects a program to what stands for a port.
func (r *rig) dial(port uint32) int {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	r.must(err)
	r.must(syscall.Connect(fd, r.names[port]))
	r.t.Cleanup(func() { syscall.Close(fd) })
	return fd
}

// read holds what a program reads to want, "" being the end.
func (r *rig) read(fd int, want string) {
	r.t.Helper()
	var p [100]byte
	n, err := syscall.Read(fd, p[:])
	if err != nil || string(p[:n]) != want {
		r.t.Fatalf("%q %v, want %q", p[:n], err, want)
	}
}

func listen(port, flags uint32) wire.Packet {
	return wire.Packet{Type: wire.TypeControl, Op: wire.CtlListen, DstPort: port, Flags: flags}
}

// stream is a packet of the host on the stream that was the n-th to be dialled, to port.
func stream(op wire.Op, port, n, flags uint32, payload string) wire.Packet {
	return wire.Packet{Type: wire.TypeStream, Op: op, SrcPort: port, DstPort: 0x80000000 + n, Flags: flags, BufAlloc: 1 << 16, Payload: []byte(payload)}
}

func TestBytesPassBothWaysAndEachDirectionEndsByItself(t *testing.T) {
	r := newRig(t, 7)
	r.send(listen(7, wire.Programs))
	program := r.dial(7)
	r.expect("1 0->7 0")
	_, err := syscall.Write(program, []byte("early"))
	r.must(err)
	r.send(stream(wire.OpResponse, 7, 0, 0, ""), stream(wire.OpRW, 7, 0, 0, "hello"))
	r.read(program, "hello")
	r.expect("5 0->7 0 early")
	r.send(stream(wire.OpShutdown, 7, 0, wire.ShutSend, ""))
	r.read(program, "")
	_, err = syscall.Write(program, []byte("late"))
	r.must(err)
	r.expect("5 0->7 0 late")
	r.must(syscall.Shutdown(program, syscall.SHUT_WR))
	r.expect("4 0->7 2")
}

func TestAProgramThatClosesNeitherTakesNorSends(t *testing.T) {
	r := newRig(t, 7)
	r.send(listen(7, wire.Programs))
	program := r.dial(7)
	r.expect("1 0->7 0")
	r.send(stream(wire.OpResponse, 7, 0, 0, ""), stream(wire.OpRW, 7, 0, 0, "x"))
	r.read(program, "x")
	syscall.Close(program)
	r.expect("4 0->7 1")
	r.expect("4 0->7 3")
}

func TestAStreamThatTheHostEndsIsEndedForTheProgram(t *testing.T) {
	for name, op := range map[string]wire.Op{"refused": wire.OpRst, "reset": wire.OpResponse} {
		r := newRig(t, 7)
		r.send(listen(7, wire.Programs))
		program := r.dial(7)
		r.expect("1 0->7 0")
		r.send(stream(op, 7, 0, 0, ""))
		if op == wire.OpResponse {
			r.send(stream(wire.OpRst, 7, 0, 0, ""))
		}
		r.read(program, "")
		if _, err := syscall.Write(program, []byte("x")); err != syscall.EPIPE {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAHostThatTakesNoMoreIsABrokenPipeForTheProgram(t *testing.T) {
	r := newRig(t, 7)
	r.send(listen(7, wire.Programs))
	program := r.dial(7)
	r.expect("1 0->7 0")
	r.send(stream(wire.OpResponse, 7, 0, 0, ""), stream(wire.OpShutdown, 7, 0, wire.ShutReceive, ""))
	r.expect("4 0->7 2")
	if _, err := syscall.Write(program, []byte("x")); err != syscall.EPIPE {
		t.Error(err)
	}
	r.send(stream(wire.OpRW, 7, 0, 0, "still"))
	r.read(program, "still")
}

func TestOnlyPortsForProgramsHaveASocketAndDriversAreLoadedForTheFirst(t *testing.T) {
	r := newRig(t, 7, 8, 9)
	r.send(listen(6, 0), listen(7, wire.Once), listen(8, wire.Programs), listen(9, wire.Programs))
	r.dial(9)
	r.expect("1 0->9 0")
	r.end()
	want := []string{"module /v.ko", "module /l.ko", "listen 8", "listen 9"}
	if !reflect.DeepEqual(r.kernel.Calls, want) {
		t.Errorf("%q", r.kernel.Calls)
	}
}

func TestAPortForOneDialTakesOneThatIsAlive(t *testing.T) {
	r := newRig(t, 7)
	syscall.Close(r.dial(7)) // interrupted, before the relay has seen it
	program := r.dial(7)
	refused := r.dial(7)
	r.send(listen(7, wire.Programs|wire.Once))
	r.expect("1 0->7 0")
	r.send(stream(wire.OpResponse, 7, 0, 0, ""), stream(wire.OpRW, 7, 0, 0, "you"))
	r.read(program, "you")
	var p [1]byte
	if n, err := syscall.Read(refused, p[:]); err != syscall.ECONNRESET && (n != 0 || err != nil) {
		t.Errorf("%d %v", n, err)
	}
	if err := syscall.Connect(refused, r.names[7]); err == nil {
		t.Error("the port can be dialled again")
	}
}

func TestAProgramThatHasEndedBeforeItWasSeenHasItsStreamAllTheSame(t *testing.T) {
	for _, said := range []string{"", "said"} {
		r := newRig(t, 7)
		program := r.dial(7)
		_, err := syscall.Write(program, []byte(said))
		r.must(err)
		syscall.Close(program)
		r.send(listen(7, wire.Programs|wire.Once))
		r.expect("1 0->7 0")
		r.send(stream(wire.OpResponse, 7, 0, 0, ""))
		r.expect("4 0->7 1")
		if said != "" {
			r.expect("5 0->7 0 " + said)
		}
		r.expect("4 0->7 3")
	}
}

func TestPortsEndWithUnlistenAndWithATransportReset(t *testing.T) {
	r := newRig(t, 7, 8)
	r.send(listen(7, wire.Programs), listen(8, wire.Programs))
	program := r.dial(8)
	r.expect("1 0->8 0")
	r.send(stream(wire.OpResponse, 8, 0, 0, ""), wire.Packet{Type: wire.TypeControl, Op: wire.CtlUnlisten, DstPort: 7})
	r.send(stream(wire.OpRW, 8, 0, 0, "on"))
	r.read(program, "on")
	closed := func(port uint32) bool {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		r.must(err)
		defer syscall.Close(fd)
		return syscall.Connect(fd, r.names[port]) == syscall.ECONNREFUSED
	}
	if !closed(7) {
		t.Error("UNLISTEN closes its port")
	}
	r.send(wire.Packet{Type: wire.TypeControl, Op: wire.CtlReset, Payload: []byte("0123456789abcdef")})
	r.read(program, "")
	r.expect("2 2147483648->0 0 0123456789abcdef")
	if !closed(8) {
		t.Error("a transport reset closes every port")
	}
}

func TestWhyAPortCannotBeDialledIsTold(t *testing.T) {
	for call, why := range map[string]string{
		"module /l.ko": "module /l.ko: no such device", "listen 7": "no such device",
	} {
		r := failingRig(t, map[string]error{call: syscall.ENODEV}, 7)
		r.send(listen(7, wire.Programs))
		if got := <-r.failed; got != strconv.Itoa(7)+" "+why {
			t.Errorf("%s: %s", call, got)
		}
		sys.Close(r.kernel.Sockets[7])
	}
}
