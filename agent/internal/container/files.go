package container

import (
	"strings"
	"syscall"

	"utilityvm/agent/internal/account"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// sandboxScheme begins a mount's source that is a folder which the containers of a sandbox share.
const sandboxScheme = "sandbox://"

const machineFolder = "/run/utilityvm/containers"

// folder is where the agent keeps what it makes for a container, in memory: secrets of the environment reach no disk.
func folder(id string) string { return machineFolder + "/" + id }

// ownFiles are the files of a container that say who it is.
var ownFiles = []string{"hostname", "hosts", "resolv.conf"}

// hostsFile returns the content of /etc/hosts for a host's name.
func hostsFile(hostname string) string {
	names := hostname
	if first, _, dotted := strings.Cut(hostname, "."); dotted {
		names += " " + first
	}
	return "127.0.0.1 localhost\n127.0.0.1 " + names + "\n\n# IPv6\n" +
		"::1 ip6-localhost ip6-loopback\nfe00::0 ip6-localnet\nff00::0 ip6-mcastprefix\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n"
}

// writeFiles makes the files of a container that is no workload.
func writeFiles(k sys.Kernel, id, hostname, servers string) error {
	if hostname == "" {
		name, err := k.ReadFile("/proc/sys/kernel/hostname")
		if err != nil {
			return &wire.Error{Code: wire.Fail, Text: "name of the utility VM", Cause: err}
		}
		hostname = strings.TrimSpace(string(name))
	}
	content := map[string]string{"hostname": hostname + "\n", "hosts": hostsFile(hostname), "resolv.conf": servers}
	for _, name := range ownFiles {
		if err := k.CreateFile(folder(id)+"/"+name, content[name], 0o644); err != nil {
			return &wire.Error{Code: wire.Fail, Text: "writing " + name, Cause: err}
		}
	}
	return nil
}

// made are the file systems that the kernel makes, which are mounted over folders.
var made = map[string]bool{"proc": true, "sysfs": true, "tmpfs": true}

// checkPlaces refuses a root in which a folder right below it is to be mounted over, and is none: crun would not say which file system that
// was for, or follow a link and make the container's devices elsewhere.
func (s *spec) checkPlaces(k sys.Kernel) error {
	for _, m := range s.mounts {
		kind, _ := m.String("type")
		target, _ := m.String("destination")
		target = strings.TrimSuffix(target, "/")
		if !made[kind] || strings.LastIndexByte(target, '/') != 0 {
			continue
		}
		if found, err := k.Device(s.root + target); err != syscall.ENOENT && found.Kind != 'd' {
			return invalid("mount " + target + ": " + target + " of the container's root is no folder, but a link or a file")
		}
	}
	return nil
}

// bindFiles shows the container the files of owner, but for those that the specification brings itself, those in whose place the root has
// a folder, and those that have no place in a root which cannot be written.
func (s *spec) bindFiles(k sys.Kernel, owner string) {
	fixed := k.IsReadOnly(s.root)
	for _, name := range ownFiles {
		target := "/etc/" + name
		_, err := k.ReadBelow(s.root, target, account.MaxFile)
		if s.mountsAt(target) || fixed && err != nil || err == syscall.EINVAL { // a folder
			continue
		}
		s.bind(folder(owner)+"/"+name, target)
	}
}

// shareMounts resolves sources that are folders of a sandbox, and makes them: shared is the sandbox's place for them, "" for a container
// without a sandbox.
func (s *spec) shareMounts(k sys.Kernel, shared string) error {
	for i := range s.mounts {
		source, err := s.mounts[i].String("source")
		if err != nil {
			return err
		}
		path := strings.TrimPrefix(source, sandboxScheme)
		if path == source {
			continue
		}
		target, _ := s.mounts[i].String("destination")
		if shared == "" {
			return invalid("mount path " + source + " for mount " + target + ": the container is in no sandbox")
		}
		path = strings.Trim(path, "/")
		if path != "" && !wire.IsPlace("/"+path) {
			return invalid("mount path " + source + " for mount " + target + " is not within sandbox's mounts dir")
		}
		if path != "" {
			if err := k.MakeDirsBelow(shared, path, 0o755); err != nil {
				return &wire.Error{Code: wire.Fail, Text: "making " + source + " for mount " + target, Cause: err}
			}
			path = "/" + path
		}
		s.mounts[i].Set("source", wire.Quoted(shared+path))
	}
	return nil
}
