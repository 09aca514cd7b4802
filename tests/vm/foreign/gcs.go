package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

const (
	bridgePort = 0x40000000
	nullID     = "00000000-0000-0000-0000-000000000000"

	negotiate = 0x10100b01
	execute   = 0x10100501
	wait      = 0x10100601
	forced    = 0x10100401
	graceful  = 0x10100301
	response  = 0x10000000 // what a response's type is more than its request's

	notImplemented = 0x80004001
	failed         = 0x80004005
	notFound       = 0x80070490
)

type request struct {
	ContainerId    string
	ActivityId     string
	MinimumVersion uint32
	MaximumVersion uint32
	ProcessId      uint32
	Settings       struct {
		ProcessParameters       string
		VsockStdioRelaySettings struct{ StdIn, StdOut, StdErr uint32 }
	}
}

type parameters struct {
	CommandArgs      []string
	WorkingDirectory string
	Environment      map[string]string
}

type answer map[string]any

type process struct {
	ended chan struct{}
	code  int
}

type bridge struct {
	conn       *os.File
	negotiated bool
	writing    sync.Mutex
	lock       sync.Mutex
	processes  map[uint32]*process
}

// serve is the original's agent as far as a host can tell that has no containers: it has the original's capabilities, it dials
// a process's streams before the program starts, and a program without a console owns them. A program with HANDSHAKE in its
// environment is relayed as one of a container is.
func serve(words []string) {
	record("info", fmt.Sprintf("GCS started with %q", words))
	conn, err := dial(bridgePort)
	if err != nil {
		record("fatal", "failed connecting the VsockConnection: "+name(err))
		os.Exit(1)
	}
	b := &bridge{conn: conn, processes: make(map[uint32]*process)}
	var header [16]byte
	for {
		if _, err := io.ReadFull(conn, header[:]); err != nil {
			record("error", "bridge read failed: "+err.Error())
			os.Exit(1)
		}
		kind, size, id := binary.LittleEndian.Uint32(header[:]), binary.LittleEndian.Uint32(header[4:]), binary.LittleEndian.Uint64(header[8:])
		body := make([]byte, size-16)
		if _, err := io.ReadFull(conn, body); err != nil {
			os.Exit(1)
		}
		var q request
		if err := json.Unmarshal(body, &q); err != nil {
			record("error", err.Error())
			os.Exit(1)
		}
		if kind == forced || kind == graceful {
			os.Exit(0)
		}
		go b.handle(kind, id, &q, b.negotiated)
		if kind == negotiate {
			b.negotiated = true
		}
	}
}

func (b *bridge) handle(kind uint32, id uint64, q *request, negotiated bool) {
	var a answer
	switch {
	case kind == negotiate && !negotiated:
		a = answer{"Version": 4, "Capabilities": map[string]any{
			"SupportedSchemaVersions": []any{map[string]int{"Major": 2, "Minor": 1}},
			"RuntimeOsType":           "Linux",
			"GuestDefinedCapabilities": map[string]bool{
				"NamespaceAddRequestSupported": true, "SignalProcessSupported": true, "DumpStacksSupported": true, "DeleteContainerStateSupported": true,
			},
		}}
	case kind == execute && negotiated:
		a = b.execute(q)
	case kind == wait && negotiated:
		a = b.wait(q.ProcessId)
	default:
		a = failure(notImplemented, fmt.Sprintf("bridge: function not supported, header type: %#x", kind))
	}
	if _, set := a["Result"]; !set {
		a["Result"] = 0
	}
	a["ActivityId"] = q.ActivityId
	body, _ := json.Marshal(a)
	frame := make([]byte, 16, 16+len(body))
	binary.LittleEndian.PutUint32(frame, kind+response)
	binary.LittleEndian.PutUint32(frame[4:], uint32(16+len(body)))
	binary.LittleEndian.PutUint64(frame[8:], id)
	b.writing.Lock()
	defer b.writing.Unlock()
	_, _ = b.conn.Write(append(frame, body...))
}

func failure(code uint32, text string) answer {
	return answer{"Result": int32(code), "ErrorMessage": text}
}

func (b *bridge) execute(q *request) answer {
	var p parameters
	if err := json.Unmarshal([]byte(q.Settings.ProcessParameters), &p); err != nil || q.ContainerId != nullID {
		return failure(failed, "only processes of the utility VM")
	}
	streams := [3]*os.File{}
	relay := q.Settings.VsockStdioRelaySettings
	for i, port := range []uint32{relay.StdIn, relay.StdOut, relay.StdErr} {
		if port == 0 {
			continue
		}
		conn, err := dial(port)
		if err != nil {
			return failure(failed, fmt.Sprintf("failed creating stream %d: vsock Dial port (%d) failed: %s", i, port, name(err)))
		}
		streams[i] = conn
	}
	command := exec.Command(p.CommandArgs[0], p.CommandArgs[1:]...)
	command.Dir = p.WorkingDirectory
	for key, value := range p.Environment {
		command.Env = append(command.Env, key+"="+value)
	}
	finish := b.own
	if p.Environment["HANDSHAKE"] != "" {
		finish = b.relay
	}
	ended, err := finish(command, streams)
	if err != nil {
		return failure(failed, "failed to call Start for external process: "+err.Error())
	}
	entry := &process{ended: make(chan struct{})}
	go func() {
		entry.code = ended()
		close(entry.ended)
	}()
	b.lock.Lock()
	b.processes[uint32(command.Process.Pid)] = entry
	b.lock.Unlock()
	return answer{"ProcessId": command.Process.Pid}
}

// own gives the program the streams themselves.
func (b *bridge) own(command *exec.Cmd, streams [3]*os.File) (func() int, error) {
	command.Stdin, command.Stdout, command.Stderr = file(streams[0]), file(streams[1]), file(streams[2])
	err := command.Start()
	for _, stream := range streams {
		if stream != nil {
			stream.Close()
		}
	}
	return func() int { return code(command) }, err
}

func file(stream *os.File) *os.File {
	if stream == nil {
		stream, _ = os.OpenFile("/dev/null", os.O_RDWR, 0)
	}
	return stream
}

// relay copies, as for a container's process: after its end the input is no longer read, and each output ends with a
// handshake, without which the exit would not be told.
func (b *bridge) relay(command *exec.Cmd, streams [3]*os.File) (func() int, error) {
	stdin, _ := command.StdinPipe()
	stdout, _ := command.StdoutPipe()
	stderr, _ := command.StderrPipe()
	if err := command.Start(); err != nil {
		return nil, err
	}
	var outputs sync.WaitGroup
	copyOut := func(from io.Reader, to *os.File) {
		if to == nil {
			return
		}
		outputs.Add(1)
		go func() {
			defer outputs.Done()
			_, _ = io.Copy(to, from)
			_ = syscall.Shutdown(int(to.Fd()), syscall.SHUT_WR)
			if n, err := to.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				record("error", fmt.Sprintf("handshake: %d bytes, %v", n, err))
			}
			to.Close()
		}()
	}
	copyOut(stdout, streams[1])
	copyOut(stderr, streams[2])
	if streams[0] != nil {
		go func() {
			_, _ = io.Copy(stdin, streams[0])
			stdin.Close()
		}()
	}
	return func() int {
		outputs.Wait()
		if streams[0] != nil {
			_ = syscall.Shutdown(int(streams[0].Fd()), syscall.SHUT_RD)
			streams[0].Close()
		}
		return code(command)
	}, nil
}

func code(command *exec.Cmd) int {
	_ = command.Wait()
	return command.ProcessState.ExitCode()
}

func (b *bridge) wait(pid uint32) answer {
	b.lock.Lock()
	entry := b.processes[pid]
	b.lock.Unlock()
	if entry == nil {
		return failure(notFound, "no such process")
	}
	<-entry.ended
	return answer{"ExitCode": uint32(entry.code)}
}

func record(level, text string) {
	line, _ := json.Marshal(map[string]string{"time": time.Now().Format(time.RFC3339Nano), "level": level, "msg": text})
	_, _ = os.Stderr.Write(append(line, '\n'))
}
