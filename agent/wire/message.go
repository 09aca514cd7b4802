package wire

import "strconv"

// MessageType is the type word of a frame: kind, category, message, version (SPEC section 5).
type MessageType uint32

// The requests that have a handler.
const (
	Create               MessageType = 0x10100101
	Start                MessageType = 0x10100201
	ShutdownGraceful     MessageType = 0x10100301
	ShutdownForced       MessageType = 0x10100401
	ExecuteProcess       MessageType = 0x10100501
	WaitForProcess       MessageType = 0x10100601
	SignalProcess        MessageType = 0x10100701
	ResizeConsole        MessageType = 0x10100801
	GetProperties        MessageType = 0x10100901
	ModifySettings       MessageType = 0x10100a01
	NegotiateProtocol    MessageType = 0x10100b01
	DumpStacks           MessageType = 0x10100c01
	DeleteContainerState MessageType = 0x10100d01
	AttachProcess        MessageType = 0x10180101 // ours
)

// Exited is the notification of a container's end.
const Exited MessageType = 0x30100101

const (
	kindMask     MessageType = 0xf0000000
	kindRequest  MessageType = 0x10000000
	kindResponse MessageType = 0x20000000
)

// IsRequest reports whether t asks for something.
func (t MessageType) IsRequest() bool { return t&kindMask == kindRequest }

// Response returns the type of the answer to t.
func (t MessageType) Response() MessageType { return t&^kindMask | kindResponse }

const (
	// NullGUID is the container id of the utility VM itself.
	NullGUID = "00000000-0000-0000-0000-000000000000"
	// ProtocolVersion is the only version of the bridge's protocol that we speak.
	ProtocolVersion = 4
	// NoTimeout as a timeout in milliseconds means no limit.
	NoTimeout = 0xffffffff
	// maxActivity is the longest activity id, which every response repeats, in bytes.
	maxActivity = 64
	// MaxText is the most of a text that a success adds, in bytes as they are written; what is over is cut off.
	MaxText = 60 * 1024
	// MaxErrorText is the most of an error's text that a response carries, in bytes: the text may quote the request,
	// and it is written twice.
	MaxErrorText = 28 * 1024
)

// Request is what every request carries.
type Request struct {
	ContainerID string
	ActivityID  string
}

// member reads the value of key if it is one that every request has, else skips it.
func (q *Request) member(r *jsonReader, key string) {
	switch key {
	case "ContainerId":
		q.ContainerID = r.str()
	case "ActivityId":
		if q.ActivityID = r.str(); len(q.ActivityID) > maxActivity {
			r.fail("ActivityId is too long")
			q.ActivityID = ""
		}
	default:
		r.skip()
	}
}

// ParseRequest reads the members of any request.
func ParseRequest(body []byte) (q Request, err error) {
	r := newJSONReader(string(body))
	r.object(func(key string) { q.member(r, key) })
	return q, r.end()
}

// Negotiate is the body of NegotiateProtocol.
type Negotiate struct {
	Request
	MinimumVersion uint32
	MaximumVersion uint32
}

// ParseNegotiate reads the body of NegotiateProtocol.
func ParseNegotiate(body []byte) (q Negotiate, err error) {
	r := newJSONReader(string(body))
	r.object(func(key string) {
		switch key {
		case "MinimumVersion":
			q.MinimumVersion = r.uint32()
		case "MaximumVersion":
			q.MaximumVersion = r.uint32()
		default:
			q.member(r, key)
		}
	})
	return q, r.end()
}

// Execute is the body of ExecuteProcess. Parameters is itself JSON.
type Execute struct {
	Request
	Stdio
	Parameters string
}

// Stdio are the ports of a process's standard streams; 0 for one that is not relayed.
type Stdio struct {
	StdIn  uint32
	StdOut uint32
	StdErr uint32
}

func (q *Stdio) read(r *jsonReader) {
	r.object(func(key string) {
		switch key {
		case "StdIn":
			q.StdIn = r.uint32()
		case "StdOut":
			q.StdOut = r.uint32()
		case "StdErr":
			q.StdErr = r.uint32()
		default:
			r.skip()
		}
	})
}

// ParseExecute reads the body of ExecuteProcess.
func ParseExecute(body []byte) (q Execute, err error) {
	r := newJSONReader(string(body))
	settings := func(key string) {
		switch key {
		case "ProcessParameters":
			q.Parameters = r.str()
		case "VsockStdioRelaySettings":
			q.Stdio.read(r)
		default:
			r.skip()
		}
	}
	r.object(func(key string) {
		if key == "Settings" {
			r.object(settings)
		} else {
			q.member(r, key)
		}
	})
	return q, r.end()
}

// Parameters say how a process is started (SPEC section 6). Environment holds NAME=value.
type Parameters struct {
	CommandLine      string
	CommandArgs      []string
	User             string
	WorkingDirectory string
	Environment      []string
	EmulateConsole   bool
	CreateStdInPipe  bool
	CreateStdOutPipe bool
	CreateStdErrPipe bool
	ConsoleSize      []uint32 // height, width
	// CreateInUtilityVM asks for a process of the machine though a container is named.
	CreateInUtilityVM bool
	OciProcess        string // JSON text of a process of a container, "" when there is none
}

// ParseParameters reads the text of Execute.Parameters.
func ParseParameters(text string) (q Parameters, err error) {
	r := newJSONReader(text)
	r.object(func(key string) {
		switch key {
		case "CommandLine":
			q.CommandLine = r.str()
		case "CommandArgs":
			q.CommandArgs = r.strings()
		case "User":
			q.User = r.str()
		case "WorkingDirectory":
			q.WorkingDirectory = r.str()
		case "Environment":
			q.Environment = nil
			r.object(func(name string) { q.Environment = append(q.Environment, name+"="+r.str()) })
		case "EmulateConsole":
			q.EmulateConsole = r.boolean()
		case "CreateStdInPipe":
			q.CreateStdInPipe = r.boolean()
		case "CreateStdOutPipe":
			q.CreateStdOutPipe = r.boolean()
		case "CreateStdErrPipe":
			q.CreateStdErrPipe = r.boolean()
		case "ConsoleSize":
			q.ConsoleSize = nil
			r.list('[', ']', func() { q.ConsoleSize = append(q.ConsoleSize, r.uint32()) })
		case "CreateInUtilityVM":
			q.CreateInUtilityVM = r.boolean()
		case "OciProcess":
			q.OciProcess = r.raw()
		default:
			r.skip()
		}
	})
	return q, r.end()
}

// ProcessRequest is the body of WaitForProcess, SignalProcess and ResizeConsole; each uses its own members.
type ProcessRequest struct {
	Request
	ProcessID   uint32
	TimeoutInMs uint32
	Signal      uint32
	Group       bool
	Height      uint32
	Width       uint32
}

// ParseProcessRequest reads the body of a request about one process. An absent TimeoutInMs is 0.
func ParseProcessRequest(body []byte) (q ProcessRequest, err error) {
	r := newJSONReader(string(body))
	options := func(key string) {
		switch key {
		case "Signal":
			q.Signal = r.uint32()
		case "Group":
			q.Group = r.boolean()
		default:
			r.skip()
		}
	}
	r.object(func(key string) {
		switch key {
		case "ProcessId":
			q.ProcessID = r.uint32()
		case "TimeoutInMs":
			q.TimeoutInMs = r.uint32()
		case "Options":
			r.object(options)
		case "Height":
			q.Height = r.uint32()
		case "Width":
			q.Width = r.uint32()
		default:
			q.member(r, key)
		}
	})
	return q, r.end()
}

// Attach is the body of AttachProcess.
type Attach struct {
	Request
	Stdio
	ProcessID uint32
}

// ParseAttach reads the body of AttachProcess.
func ParseAttach(body []byte) (q Attach, err error) {
	r := newJSONReader(string(body))
	r.object(func(key string) {
		switch key {
		case "ProcessId":
			q.ProcessID = r.uint32()
		case "VsockStdioRelaySettings":
			q.Stdio.read(r)
		default:
			q.member(r, key)
		}
	})
	return q, r.end()
}

// ProcessState is what the success of AttachProcess tells.
type ProcessState struct {
	Terminal bool
	Ended    bool
	ExitCode uint32 // once it has ended
}

// Response is the body of a response: success with what the message adds, or a failure.
type Response struct {
	Err       error  // nil for success
	Member    string // name of what a success adds, if anything
	Number    uint32
	Text      string // instead of Number, unless it is empty
	Negotiate bool   // the success of NegotiateProtocol
	State     *ProcessState
	Boot      BootTimes
}

// BootTimes are moments of the guest's boot, in microseconds of its own clock. The host maps them onto its clock by Now,
// the moment of the answer. A zero Started means that nothing is known.
type BootTimes struct{ Started, Prepared, Now int64 }

const capabilities = `,"Version":4,"Capabilities":{"SupportedSchemaVersions":[{"Major":2,"Minor":1}],"RuntimeOsType":"Linux",` +
	`"GuestDefinedCapabilities":{"NamespaceAddRequestSupported":true,"SignalProcessSupported":true,"DumpStacksSupported":true,"DeleteContainerStateSupported":true,"AttachProcessSupported":true}}`

// AppendResponse appends the JSON text of s, which answers a request with activity, to b.
func AppendResponse(b []byte, s Response, activity string) []byte {
	var code HResult
	if s.Err != nil {
		code = CodeOf(s.Err)
	}
	if activity == "" {
		activity = NullGUID
	}
	b = append(append(b, `{"Result":`...), strconv.Itoa(int(int32(code)))...)
	b = AppendString(append(b, `,"ActivityId":`...), activity)
	switch {
	case s.Err != nil:
		b = appendFailure(b, code, s.Err.Error())
	case s.Negotiate:
		b = appendBoot(append(b, capabilities...), s.Boot)
	case s.State != nil:
		b = strconv.AppendBool(append(b, `,"ProcessState":{"Terminal":`...), s.State.Terminal)
		b = strconv.AppendBool(append(b, `,"Ended":`...), s.State.Ended)
		b = append(strconv.AppendUint(append(b, `,"ExitCode":`...), uint64(s.State.ExitCode), 10), '}')
	case s.Text != "":
		b = append(AppendString(append(b, ','), s.Member), ':')
		b = appendWithin(b, s.Text, MaxText)
	case s.Member != "":
		b = append(AppendString(append(b, ','), s.Member), ':')
		b = strconv.AppendUint(b, uint64(s.Number), 10)
	}
	return append(b, '}')
}

func appendBoot(b []byte, t BootTimes) []byte {
	if t.Started == 0 {
		return b
	}
	b = strconv.AppendInt(append(b, `,"BootTimes":{"StartedUs":`...), t.Started, 10)
	b = strconv.AppendInt(append(b, `,"PreparedUs":`...), t.Prepared, 10)
	return append(strconv.AppendInt(append(b, `,"NowUs":`...), t.Now, 10), '}')
}

func appendFailure(b []byte, code HResult, text string) []byte {
	message := appendWithin(nil, text, MaxErrorText)
	b = append(append(b, `,"ErrorMessage":`...), message...)
	b = append(append(b, `,"ErrorRecords":[{"Result":`...), strconv.Itoa(int(int32(code)))...)
	b = append(append(b, `,"Message":`...), message...)
	return append(b, `,"ModuleName":"gcs","FileName":"","Line":4294967295,"FunctionName":"","StackTrace":""}]`...)
}
