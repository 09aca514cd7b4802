package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
)

// message is one entry of protocol/golden/messages.json.
type message struct {
	Name    string         `json:"name"`
	From    string         `json:"from"`
	Type    MessageType    `json:"type"`
	Body    string         `json:"body"`
	Fields  *messageFields `json:"fields"`
	Error   string         `json:"error"`
	Written *bool          `json:"written"`
}

// messageFields are the members of all messages, under the names of the vectors.
type messageFields struct {
	ContainerID    string           `json:"container_id"`
	ActivityID     string           `json:"activity_id"`
	MinimumVersion uint32           `json:"minimum_version"`
	MaximumVersion uint32           `json:"maximum_version"`
	Parameters     parametersFields `json:"parameters"`
	StdIn          uint32           `json:"std_in"`
	StdOut         uint32           `json:"std_out"`
	StdErr         uint32           `json:"std_err"`
	ProcessID      uint32           `json:"process_id"`
	TimeoutMs      uint32           `json:"timeout_ms"`
	Signal         uint32           `json:"signal"`
	Group          bool             `json:"group"`
	Height         uint32           `json:"height"`
	Width          uint32           `json:"width"`
	PropertyTypes  []string         `json:"property_types"`
	told
	unread
	Result       int32            `json:"result"`
	ErrorMessage string           `json:"error_message"`
	Version      uint32           `json:"version"`
	ExitCode     uint32           `json:"exit_code"`
	Process      stateFields      `json:"process_state"`
	GuestStacks  string           `json:"guest_stacks"`
	Properties   propertiesFields `json:"properties"`
	BootTimes    [3]int64         `json:"boot_times"`
}

// unread are members of messages that have no handler here.
type unread struct {
	Ocsc      json.RawMessage `json:"ocsc"`
	Request   json.RawMessage `json:"request"`
	Resources string          `json:"resources"`
	Operation string          `json:"operation"`
}

// told are members of messages about a container's beginning and end.
type told struct {
	ContainerConfig string `json:"container_config"`
	Kind            string `json:"type"`
	ResultInfo      string `json:"result_info"`
}

type stateFields struct {
	Terminal bool   `json:"terminal"`
	Ended    bool   `json:"ended"`
	ExitCode uint32 `json:"exit_code"`
}

type placeFields struct {
	State     string   `json:"state"`
	ProcessID uint32   `json:"process_id"`
	ExitCode  uint32   `json:"exit_code"`
	Type      ExitType `json:"type"`
	OOMKills  uint64   `json:"oom_kills"`
}

type detachedFields struct {
	PID         int    `json:"process_id"`
	Name        string `json:"name"`
	ContainerID string `json:"container_id"`
	Terminal    bool   `json:"terminal"`
	Ended       bool   `json:"ended"`
}

type propertiesFields struct {
	AvailableMemory uint64 `json:"available_memory"`
	AssignedMemory  uint64 `json:"assigned_memory"`
	ProcessList     []int  `json:"process_list"`

	Detached []detachedFields `json:"detached_processes"`
	State    *placeFields     `json:"container_state"`

	Metrics *metricsFields `json:"metrics"`
}

type metricsFields struct {
	PIDs struct{ Current, Limit uint64 }
	CPU  struct {
		Usage      struct{ Total, Kernel, User uint64 }
		Throttling struct {
			Periods   uint64
			Throttled uint64 `json:"throttled_periods"`
			Time      uint64 `json:"throttled_time"`
		}
	}
	Memory map[string]any
	Blkio  struct {
		Bytes      []diskFields `json:"io_service_bytes_recursive"`
		Operations []diskFields `json:"io_serviced_recursive"`
	}
	OOM struct {
		Kills uint64 `json:"oom_kill"`
	} `json:"memory_oom_control"`
}

type diskFields struct {
	Op                  string
	Major, Minor, Value uint64
}

// metrics returns what the fields say.
func (f *metricsFields) metrics() *Metrics {
	if f == nil {
		return nil
	}
	m := &Metrics{PIDs: f.PIDs.Current, PIDLimit: f.PIDs.Limit, CPUTotal: f.CPU.Usage.Total, CPUKernel: f.CPU.Usage.Kernel, CPUUser: f.CPU.Usage.User,
		Periods: f.CPU.Throttling.Periods, Throttled: f.CPU.Throttling.Throttled, ThrottledTime: f.CPU.Throttling.Time, OOMKills: f.OOM.Kills, Memory: map[string]uint64{}}
	for name, value := range f.Memory {
		switch v := value.(type) {
		case float64:
			m.Memory[name] = uint64(v)
		case map[string]any:
			limit := MemoryLimit{Limit: uint64(v["limit"].(float64)), Usage: uint64(v["usage"].(float64)), Max: uint64(v["max"].(float64)), Failures: uint64(v["failcnt"].(float64))}
			if v["limit"].(float64) > 1<<63 {
				limit.Limit = math.MaxUint64 // for which a float has no room
			}
			*map[string]*MemoryLimit{"usage": &m.Usage, "swap": &m.Swap, "kernel": &m.Kernel}[name] = limit
		}
	}
	pairs := func(from []diskFields) (to []IOEntry) {
		for i := 0; i < len(from); i += 2 {
			to = append(to, IOEntry{from[i].Major, from[i].Minor, from[i].Value, from[i+1].Value})
		}
		return to
	}
	m.Bytes, m.Operations = pairs(f.Blkio.Bytes), pairs(f.Blkio.Operations)
	return m
}

type parametersFields struct {
	CommandLine      string            `json:"command_line"`
	CommandArgs      []string          `json:"command_args"`
	User             string            `json:"user"`
	WorkingDirectory string            `json:"working_directory"`
	Environment      map[string]string `json:"environment"`
	EmulateConsole   bool              `json:"emulate_console"`
	CreateStdInPipe  bool              `json:"create_std_in_pipe"`
	CreateStdOutPipe bool              `json:"create_std_out_pipe"`
	CreateStdErrPipe bool              `json:"create_std_err_pipe"`
	ConsoleSize      []uint32          `json:"console_size"`
}

func messages(t testing.TB) (fromHost, fromGuest []message) {
	t.Helper()
	text, err := os.ReadFile(goldenFolder + "messages.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []message
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&list); err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		if m.Fields != nil {
			m.Fields.unread = unread{}
		}
		if m.From == "host" {
			fromHost = append(fromHost, m)
		} else {
			fromGuest = append(fromGuest, m)
		}
	}
	if len(fromHost) == 0 || len(fromGuest) == 0 {
		t.Fatal("messages of one side are missing")
	}
	return fromHost, fromGuest
}

func fieldsOf(p *Parameters) parametersFields {
	var environment map[string]string
	for _, entry := range p.Environment {
		if environment == nil {
			environment = map[string]string{}
		}
		name, value, _ := strings.Cut(entry, "=")
		environment[name] = value
	}
	return parametersFields{
		CommandLine: p.CommandLine, CommandArgs: p.CommandArgs, User: p.User, WorkingDirectory: p.WorkingDirectory, Environment: environment,
		EmulateConsole: p.EmulateConsole, CreateStdInPipe: p.CreateStdInPipe, CreateStdOutPipe: p.CreateStdOutPipe,
		CreateStdErrPipe: p.CreateStdErrPipe, ConsoleSize: p.ConsoleSize,
	}
}

// readRequest reads body as a request of that type, nested JSON included.
func readRequest(kind MessageType, body []byte) (messageFields, error) {
	switch kind {
	case NegotiateProtocol:
		q, err := ParseNegotiate(body)
		return messageFields{ContainerID: q.ContainerID, ActivityID: q.ActivityID, MinimumVersion: q.MinimumVersion, MaximumVersion: q.MaximumVersion}, err
	case ExecuteProcess:
		q, err := ParseExecute(body)
		if err != nil {
			return messageFields{}, err
		}
		p, err := ParseParameters(q.Parameters)
		return messageFields{
			ContainerID: q.ContainerID, ActivityID: q.ActivityID, Parameters: fieldsOf(&p), StdIn: q.StdIn, StdOut: q.StdOut, StdErr: q.StdErr,
		}, err
	case Create:
		q, err := ParseCreation(body)
		return messageFields{ContainerID: q.ContainerID, ActivityID: q.ActivityID, told: told{ContainerConfig: q.Config}}, err
	case GetProperties:
		q, err := ParseQuery(body)
		return messageFields{ContainerID: q.ContainerID, ActivityID: q.ActivityID, PropertyTypes: q.Types}, err
	case AttachProcess:
		q, err := ParseAttach(body)
		return messageFields{
			ContainerID: q.ContainerID, ActivityID: q.ActivityID, ProcessID: q.ProcessID, StdIn: q.StdIn, StdOut: q.StdOut, StdErr: q.StdErr,
		}, err
	case WaitForProcess, SignalProcess, ResizeConsole:
		q, err := ParseProcessRequest(body)
		return messageFields{
			ContainerID: q.ContainerID, ActivityID: q.ActivityID, ProcessID: q.ProcessID, TimeoutMs: q.TimeoutInMs, Signal: q.Signal, Group: q.Group,
			Height: q.Height, Width: q.Width,
		}, err
	}
	q, err := ParseRequest(body)
	return messageFields{ContainerID: q.ContainerID, ActivityID: q.ActivityID}, err
}

func TestGoldenRequestsAreRead(t *testing.T) {
	requests, _ := messages(t)
	for _, m := range requests {
		got, err := readRequest(m.Type, []byte(m.Body))
		switch {
		case m.Error != "":
			if m.Error != "InvalidJSON" || err == nil || CodeOf(err) != InvalidJSON {
				t.Errorf("%s: %v, want %s", m.Name, err, m.Error)
			}
		case err != nil:
			t.Errorf("%s: %v", m.Name, err)
		case !reflect.DeepEqual(got, *m.Fields):
			t.Errorf("%s: read as %+v, want %+v", m.Name, got, *m.Fields)
		}
	}
}

func TestGoldenResponsesAreWritten(t *testing.T) {
	_, responses := messages(t)
	codes := map[HResult]bool{}
	for _, m := range responses {
		if m.Error != "" || m.Written != nil && !*m.Written {
			continue
		}
		if m.Type == Exited {
			n := Notification{ContainerID: m.Fields.ContainerID, ActivityID: m.Fields.ActivityID, Type: ExitType(m.Fields.Kind)}
			if info := m.Fields.ResultInfo; info != "" {
				o, err := ParseObject(info)
				kills, again := o.Uint32("OomKills")
				if err != nil || again != nil {
					t.Errorf("%s: %v %v", m.Name, err, again)
				}
				n.OOMKills = uint64(kills)
			}
			if got := AppendNotification(nil, n); string(got) != m.Body {
				t.Errorf("%s: written as\n%s, want\n%s", m.Name, got, m.Body)
			}
			continue
		}
		var s Response
		switch code := HResult(m.Fields.Result); {
		case code != 0:
			s.Err = &Error{Code: code, Text: m.Fields.ErrorMessage}
			codes[code] = true
		case m.Type == NegotiateProtocol.Response():
			boot := m.Fields.BootTimes
			s.Negotiate, s.Boot = true, BootTimes{Started: boot[0], Prepared: boot[1], Now: boot[2]}
		case m.Type == ExecuteProcess.Response():
			s.Member, s.Number = "ProcessId", m.Fields.ProcessID
		case m.Type == WaitForProcess.Response():
			s.Member, s.Number = "ExitCode", m.Fields.ExitCode
		case m.Type == GetProperties.Response():
			f := m.Fields.Properties
			p := Properties{Listed: f.ProcessList != nil, Processes: f.ProcessList, Metrics: f.Metrics.metrics()}
			p.State = (*ContainerState)(f.State)
			for _, d := range f.Detached {
				p.Detached = append(p.Detached, Detached(d))
			}
			if f.AssignedMemory != 0 {
				p.Memory = &Memory{Available: f.AvailableMemory, Assigned: f.AssignedMemory}
			}
			s.Member, s.Text = "Properties", string(AppendProperties(nil, &p))
		case m.Type == AttachProcess.Response():
			state := ProcessState(m.Fields.Process)
			s.State = &state
		case m.Type == DumpStacks.Response():
			s.Member, s.Text = "GuestStacks", m.Fields.GuestStacks
		}
		if got := AppendResponse(nil, s, m.Fields.ActivityID); string(got) != m.Body {
			t.Errorf("%s: written as\n%s, want\n%s", m.Name, got, m.Body)
		}
	}
	for _, code := range []HResult{
		NotImpl, Fail, FileNotFound, PathNotFound, AccessDenied, InvalidArg, NotFound, Timeout, UnsupportedProtocolVersion, InvalidJSON, SystemNotFound,
		SystemAlreadyExists, InvalidState,
	} {
		if !codes[code] {
			t.Errorf("no golden response has %s", Hex(uint32(code)))
		}
	}
}

func TestAResponseToNoActivityNamesTheNullOne(t *testing.T) {
	if got, want := string(AppendResponse(nil, Response{}, "")), `{"Result":0,"ActivityId":"`+NullGUID+`"}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestHexHasEightDigits(t *testing.T) {
	for n, want := range map[uint32]string{0: "0x00000000", 0xf: "0x0000000f", 0x10100b01: "0x10100b01", 0xffffffff: "0xffffffff"} {
		if got := Hex(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestAnErrorTellsItsCause(t *testing.T) {
	cause := errors.New("permission denied")
	err := &Error{Code: AccessDenied, Text: "cannot start", Cause: cause}
	if err.Error() != "cannot start: permission denied" || !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
}

// FuzzMessages reads whatever comes as every request and answers it.
func FuzzMessages(f *testing.F) {
	fromHost, fromGuest := messages(f)
	for _, m := range append(fromHost, fromGuest...) {
		f.Add([]byte(m.Body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > MaxFrame-FrameHeaderSize {
			return
		}
		common, commonErr := ParseRequest(body)
		for _, kind := range []MessageType{NegotiateProtocol, Create, ExecuteProcess, WaitForProcess, AttachProcess, GetProperties, ShutdownForced} {
			q, err := readRequest(kind, body)
			if err != nil && CodeOf(err) != InvalidJSON {
				t.Fatalf("%s: %v", Hex(uint32(kind)), err)
			}
			if err == nil && (commonErr != nil || q.ContainerID != common.ContainerID || q.ActivityID != common.ActivityID) {
				t.Fatalf("%s: %+v, but as any request %+v, %v", Hex(uint32(kind)), q, common, commonErr)
			}
		}
		if p, err := ParseParameters(string(body)); err == nil && textOf(&p) > len(body) {
			t.Fatalf("%d bytes of text out of %d", textOf(&p), len(body))
		}
		for _, s := range []Response{{Err: &Error{Code: Fail, Text: string(body)}}, {Member: "GuestStacks", Text: string(body)}} {
			if answer := AppendResponse(nil, s, common.ActivityID); !json.Valid(answer) || FrameHeaderSize+len(answer) > MaxFrame {
				t.Fatalf("answered with %d bytes: %.300s", len(answer), answer)
			}
		}
	})
}

// textOf returns how much text p holds; every piece of it was in the request, in at least as many bytes.
func textOf(p *Parameters) int {
	n := len(p.CommandLine) + len(p.User) + len(p.WorkingDirectory) + len(p.ConsoleSize)
	for _, list := range [][]string{p.CommandArgs, p.Environment} {
		for _, s := range list {
			n += len(s) + 1
		}
	}
	return n
}
