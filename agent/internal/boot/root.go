package boot

import (
	"strings"

	"utilityvm/agent/internal/gcs"
	"utilityvm/agent/internal/session"
	"utilityvm/agent/internal/sys"
)

const (
	rootDevice = "/dev/pmem0"
	newRoot    = "/newroot"
)

// Begin mounts what the kernel tells of the machine. From an initial RAM disk it goes on to the root file system that the
// kernel's command line names, if it names one: there the next init runs, with the same words, and Begin does not return.
func Begin(k sys.Kernel, words []string) error {
	for i := range told {
		if err := told[i].make(k); err != nil {
			return err
		}
	}
	line, err := k.ReadFile("/proc/cmdline")
	if err != nil {
		return &session.Failure{What: "/proc/cmdline", Why: err}
	}
	root, init := rootOf(string(line))
	if root == "" {
		return nil
	}
	mounted, err := k.ReadFile("/proc/mounts")
	if err != nil {
		return &session.Failure{What: "/proc/mounts", Why: err}
	}
	if first := strings.Fields(string(mounted)); len(first) < 3 || first[1] != "/" || first[2] != "rootfs" {
		return nil // it is the root already
	}
	if root != rootDevice {
		return &session.Failure{What: "kernel command line", Why: ArgsError("root=" + root + ": the root can only be " + rootDevice)}
	}
	return goOn(k, init, words)
}

// goOn makes device 0 the root, free of all mounts as a kernel without an initial RAM disk hands it over, and becomes its init.
func goOn(k sys.Kernel, init string, words []string) error {
	if err := sys.LoadModules(k, "boot"); err != nil {
		return &session.Failure{What: "drivers", Why: err}
	}
	if err := gcs.MountPMem(k, 0, newRoot); err != nil {
		return &session.Failure{What: "root", Why: err}
	}
	for i := len(told) - 1; i >= 0; i-- {
		if err := k.Unmount(told[i].target); err != nil {
			return &session.Failure{What: "unmounting " + told[i].target, Why: err}
		}
	}
	if err := k.SwitchRoot(newRoot); err != nil {
		return &session.Failure{What: "making " + rootDevice + " the root", Why: err}
	}
	return &session.Failure{What: init + " on " + rootDevice, Why: k.Exec(init, append([]string{init}, words...))}
}

// rootOf returns the root that the kernel's command line names, "" for none, and its init. Of several the last counts, as for the kernel.
func rootOf(line string) (root, init string) {
	init = "/init"
	for _, word := range strings.Fields(line) {
		switch name, value, _ := strings.Cut(word, "="); name {
		case "--":
			return root, init
		case "root":
			root = value
		case "init":
			init = value
		}
	}
	return root, init
}
