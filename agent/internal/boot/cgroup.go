package boot

import (
	"strings"

	"utilityvm/agent/internal/session"
	"utilityvm/agent/internal/sys"
)

// mountControlGroups mounts control groups of a version. An agent from the time of version 1 looks for a folder for each controller.
func mountControlGroups(k sys.Kernel, version string) error {
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
