package container

import (
	"strconv"
	"strings"

	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// Annotations of a specification that the agent looks at.
const (
	kindAnnotation       = "io.kubernetes.cri.container-type"
	sandboxAnnotation    = "io.kubernetes.cri.sandbox-id"
	userAnnotation       = "io.microsoft.lcow.userstr"
	privilegedAnnotation = "io.microsoft.virtualmachine.lcow.privileged"
)

// Kind is what a container is to others.
type Kind int

// The kinds. A standalone container is alone; a sandbox has the namespaces and files that its workloads share.
const (
	Standalone Kind = iota
	Sandbox
	Workload
)

// maxHostname is the longest name of a host, in bytes, as for the kernel.
const maxHostname = 64

// spec is a specification that was read as far as the agent needs it.
type spec struct {
	all        wire.Object
	kind       Kind
	sandbox    string // of a workload
	privileged bool
	who        string // the user by name, "" when the numbers in the specification count
	hostname   string
	network    string // id of the network namespace whose adapters it is to have, in lower case, "" for none
	root       string // path of the root file system
	readOnly   bool
	terminal   bool
	afterStart bool // something is to be run when the first process has started
	afterEnd   bool // or when the container is deleted
	process    wire.Object
	linux      wire.Object
	windows    wire.Object
	resources  wire.Object
	mounts     []wire.Object
	devices    []wire.Object
	namespaces []wire.Object
	fillings   []filling
}

// readSpec reads a specification whose bundle is in a folder, and finds its mistakes.
func readSpec(all wire.Object, bundle string) (*spec, error) {
	s := &spec{all: all}
	root := func() error { return s.readRoot(bundle) }
	for _, read := range []func() error{s.readAnnotations, root, s.readProcess, s.readLinux, s.readWindows, s.readNetwork, s.readRest} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func invalid(text string) error { return &wire.Error{Code: wire.InvalidArg, Text: text} }

func (s *spec) readAnnotations() error {
	notes, err := s.all.Object("annotations")
	if err != nil {
		return err
	}
	said := map[string]string{}
	for _, name := range []string{kindAnnotation, sandboxAnnotation, userAnnotation, privilegedAnnotation} {
		if said[name], err = notes.String(name); err != nil {
			return err
		}
	}
	switch kind := said[kindAnnotation]; kind {
	case "":
	case "sandbox":
		s.kind = Sandbox
	case "container":
		if s.kind, s.sandbox = Workload, said[sandboxAnnotation]; s.sandbox == "" {
			return invalid("unsupported '" + sandboxAnnotation + "': ''")
		}
	default:
		return invalid("unsupported '" + kindAnnotation + "': '" + kind + "'")
	}
	s.who, s.privileged = said[userAnnotation], said[privilegedAnnotation] == "true"
	return nil
}

func (s *spec) readRoot(bundle string) error {
	root, err := s.all.Object("root")
	if err != nil {
		return err
	}
	if s.root, err = root.String("path"); err != nil {
		return err
	}
	if s.readOnly, err = root.Bool("readonly"); err != nil {
		return err
	}
	if s.root == "" {
		return invalid("root.path is missing")
	}
	if !strings.HasPrefix(s.root, "/") {
		s.root = bundle + "/" + s.root
	}
	if s.root = strings.TrimSuffix(s.root, "/"); !wire.IsPlace(s.root) {
		return invalid("root.path must be a path without .. in it, and not the root: '" + s.root + "'")
	}
	return nil
}

func (s *spec) readProcess() (err error) {
	if s.process, err = s.all.Object("process"); err != nil {
		return err
	}
	if len(s.process) == 0 {
		return invalid("process is missing")
	}
	if s.terminal, err = s.process.Bool("terminal"); err != nil {
		return err
	}
	who, err := userName(s.process)
	if who != "" {
		s.who = who
	}
	return err
}

// userName returns the user that a process names by name.
func userName(process wire.Object) (string, error) {
	user, err := process.Object("user")
	if err != nil {
		return "", err
	}
	return user.String("username")
}

func (s *spec) readLinux() (err error) {
	if s.linux, err = s.all.Object("linux"); err != nil {
		return err
	}
	if s.resources, err = s.linux.Object("resources"); err != nil {
		return err
	}
	if s.devices, err = s.linux.Objects("devices"); err != nil {
		return err
	}
	s.namespaces, err = s.linux.Objects("namespaces")
	return err
}

// readWindows reads the section for Windows, of which a guest of Linux has the network.
func (s *spec) readWindows() (err error) {
	if s.windows, err = s.all.Object("windows"); err != nil {
		return err
	}
	devices, err := s.windows.Objects("devices")
	if err == nil && len(devices) > 0 {
		err = &wire.Error{Code: wire.NotImpl, Text: "windows.devices: this guest has no VMBus, by which they are found; linux.devices names nodes in /dev"}
	}
	return err
}

// readNetwork reads which network namespace of the machine the container has; it is a namespace of the kernel's of its own then.
func (s *spec) readNetwork() error {
	network, err := s.windows.Object("network")
	if err != nil {
		return err
	}
	id, err := network.String("networkNamespace")
	if err != nil || id == "" {
		return err
	}
	own, err := s.namespace("network")
	if err != nil {
		return err
	}
	if s.network = strings.ToLower(id); s.network == wire.NullGUID {
		return invalid("network namespace " + id + " is the utility VM's own: a container is in it without a namespace of the type network")
	}
	if s.kind != Workload && (own == nil || own.Text("path") != "") {
		return invalid("network namespace " + id + ": the container needs a namespace of the type network of its own for it")
	}
	return nil
}

func (s *spec) readRest() (err error) {
	if s.mounts, err = s.all.Objects("mounts"); err != nil {
		return err
	}
	if err = s.takeFillings(); err != nil {
		return err
	}
	hooks, err := s.all.Object("hooks")
	if err != nil {
		return err
	}
	for name, has := range map[string]*bool{"poststart": &s.afterStart, "poststop": &s.afterEnd} {
		list, err := hooks.List(name)
		if err != nil {
			return err
		}
		*has = len(list) > 0
	}
	if s.hostname, err = s.all.String("hostname"); err != nil {
		return err
	}
	if s.kind == Workload && s.hostname != "" {
		return invalid("workload container must not change hostname: " + s.hostname)
	}
	if len(s.hostname) > maxHostname || strings.IndexFunc(s.hostname, func(c rune) bool { return c <= ' ' || c == 0x7f }) >= 0 {
		return invalid("hostname: '" + s.hostname + "' is no name of a host")
	}
	return nil
}

// namespace returns a namespace of the specification, nil when it has none of that type.
func (s *spec) namespace(kind string) (found *wire.Object, err error) {
	for i := range s.namespaces {
		is, err := s.namespaces[i].String("type")
		if err != nil {
			return nil, err
		}
		if is == kind {
			found = &s.namespaces[i]
		}
	}
	return found, nil
}

// ownsProcesses reports whether all of the container's processes end with its first one.
func (s *spec) ownsProcesses() bool {
	pid, err := s.namespace("pid")
	return err == nil && pid != nil && pid.Text("path") == ""
}

// join makes the container use the namespaces of a process: those that containers of one sandbox share, as far as the specification has
// none that exist already. Processes of others are seen only by a container that has no namespace of its own for them.
func (s *spec) join(pid int) error {
	folder := "/proc/" + strconv.Itoa(pid) + "/ns/"
	for _, shared := range []struct {
		kind, file string
		always     bool
	}{{"network", "net", true}, {"ipc", "ipc", true}, {"uts", "uts", true}, {"pid", "pid", false}} {
		had, err := s.namespace(shared.kind)
		if err != nil {
			return err
		}
		switch {
		case had == nil:
			s.namespaces = append(s.namespaces, wire.Object{{Name: "type", Text: wire.Quoted(shared.kind)}, {Name: "path", Text: wire.Quoted(folder + shared.file)}})
		case shared.always && had.Text("path") == "":
			had.Set("path", wire.Quoted(folder+shared.file))
		}
	}
	return nil
}

// mountsAt reports whether the specification mounts something at a path of the container.
func (s *spec) mountsAt(path string) bool {
	for _, m := range s.mounts {
		if target, err := m.String("destination"); err == nil && strings.TrimSuffix(target, "/") == path {
			return true
		}
	}
	return false
}

// bind adds a file of the machine at a path of the container.
func (s *spec) bind(source, target string) {
	options := `["bind","nosuid","nodev"]`
	if s.readOnly {
		options = `["bind","nosuid","nodev","ro"]`
	}
	s.mounts = append(s.mounts, wire.Object{
		{Name: "destination", Text: wire.Quoted(target)},
		{Name: "type", Text: `"bind"`},
		{Name: "source", Text: wire.Quoted(source)},
		{Name: "options", Text: options},
	})
}

// runAs puts the numbers of an account into the description of a process, in place of its name.
func runAs(process *wire.Object, account *sys.Credential) error {
	user, err := process.Object("user")
	if err != nil {
		return err
	}
	groups, err := user.Numbers("additionalGids")
	if err != nil {
		return err
	}
	list := make([]string, 0, len(groups)+len(account.Groups))
	for _, gid := range append(groups, account.Groups...) {
		list = append(list, strconv.FormatUint(uint64(gid), 10))
	}
	user.Set("username", "")
	user.Set("uid", strconv.FormatUint(uint64(account.UID), 10))
	user.Set("gid", strconv.FormatUint(uint64(account.GID), 10))
	if len(list) > 0 {
		user.Set("additionalGids", "["+strings.Join(list, ",")+"]")
	}
	process.Set("user", user.Encode())
	return nil
}

// setHome adds HOME to the environment of a process, unless it has one, or has none at all: one more process of a container then gets that
// of the first.
func setHome(process *wire.Object, home func() string) error {
	if process.Text("env") == "" {
		return nil
	}
	env, err := process.Strings("env")
	if err != nil {
		return err
	}
	list := make([]string, 0, len(env)+1)
	for _, entry := range env {
		if strings.HasPrefix(entry, "HOME=") {
			return nil
		}
		list = append(list, wire.Quoted(entry))
	}
	process.Set("env", "["+strings.Join(append(list, wire.Quoted("HOME="+home())), ",")+"]")
	return nil
}

// cgroupPath is a container's place among the control groups.
func cgroupPath(id string) string { return "/containers/" + id }

// encode returns the specification that crun gets.
func (s *spec) encode(id string) string {
	s.resources.Set("devices", orText(s.resources.Text("devices"), `[{"allow":false,"access":"rwm"}]`))
	s.linux.Set("resources", s.resources.Encode())
	s.linux.Set("cgroupsPath", wire.Quoted(cgroupPath(id)))
	if len(s.namespaces) > 0 {
		s.linux.Set("namespaces", wire.EncodeList(s.namespaces))
	}
	if len(s.devices) > 0 {
		s.linux.Set("devices", wire.EncodeList(s.devices))
	}
	root, _ := s.all.Object("root") // it was read before
	root.Set("path", wire.Quoted(s.root))
	s.all.Set("ociVersion", `"1.0.2"`) // crun 1.8 refuses the number of a later one, and reads it all the same
	s.all.Set("root", root.Encode())
	s.all.Set("process", s.process.Encode())
	s.all.Set("mounts", wire.EncodeList(s.mounts))
	s.all.Set("linux", s.linux.Encode())
	s.all.Set("windows", "")
	return s.all.Encode()
}

func orText(text, other string) string {
	if text == "" || text == "[]" {
		return other
	}
	return text
}
