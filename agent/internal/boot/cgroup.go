package boot

import (
	"strings"

	"utilityvm/agent/internal/session"
	"utilityvm/agent/internal/sys"
)

// prefix begins the words of the kernel's command line that are for us. The kernel takes a word with a dot for a module's and
// minds no more.
const prefix = "uvm."

// mountControlGroups mounts control groups of the version that uvm.cgroup names, 2 when nothing does. An agent from the time of
// version 1 looks for a folder for each controller.
func mountControlGroups(k sys.Kernel) error {
	line, err := k.ReadFile("/proc/cmdline")
	if err != nil {
		return &session.Failure{What: "/proc/cmdline", Why: err}
	}
	version := "2"
	for _, word := range strings.Fields(string(line)) {
		if word == "--" {
			break
		}
		if !strings.HasPrefix(word, prefix) {
			continue
		}
		name, value, _ := strings.Cut(word, "=")
		if name != prefix+"cgroup" || value != "1" && value != "2" {
			return &session.Failure{What: "kernel command line", Why: ArgsError("unknown word " + word + "; there is uvm.cgroup=1 and uvm.cgroup=2")}
		}
		version = value
	}
	const folder = "/sys/fs/cgroup"
	if version == "2" {
		m := mount{"cgroup2", folder, nosuid | nodev | noexec, "", 0o755}
		return m.make(k)
	}
	all := []mount{{"tmpfs", folder, nosuid | nodev | noexec, "mode=0755", 0o755}}
	table, err := k.ReadFile("/proc/cgroups")
	if err != nil {
		return &session.Failure{What: "/proc/cgroups", Why: err}
	}
	for _, row := range strings.Split(string(table), "\n") {
		// name, hierarchy, number of groups, enabled
		if fields := strings.Fields(row); len(fields) == 4 && fields[3] == "1" {
			all = append(all, mount{"cgroup", folder + "/" + fields[0], nosuid | nodev | noexec, fields[0], 0o755})
		}
	}
	for i := range all {
		if err := all[i].make(k); err != nil {
			return err
		}
	}
	return nil
}
