package container

import (
	"sort"
	"strings"
	"syscall"

	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// Delete forgets a container that has ended, or is about to because it was killed, with all that was made for it.
func (t *Table) Delete(c *Container, done func(error)) {
	if c.exit == wire.ForcedExit && !c.over && c.state != Creating && c.state != Deleting {
		c.whenOver = append(c.whenOver, func() { t.Delete(c, done) })
		return
	}
	if err := c.must("deleted", Stopped); err != nil {
		done(err)
		return
	}
	t.processes.Hurry(c.ID, 0)
	c.state = Deleting
	t.sweep(c, func(err error) {
		if err != nil {
			c.state = Stopped
		} else {
			t.processes.Forget(c.ID)
			delete(t.byID, c.ID)
		}
		done(err)
	})
}

// sweep removes what crun and the agent have made for a container, whatever there is of it. It does what "crun delete" would take a
// program with a dozen libraries to do, where nothing is to be run after the end: the control group and the folder of crun's notes go.
func (t *Table) sweep(c *Container, then func(error)) {
	clear := func(error) {
		t.loop.Beside(func() error { return t.clear(c) }, then)
	}
	if !c.spec.afterEnd {
		clear(nil)
		return
	}
	t.errand(c).run(t.processes.Null(), clear, "delete", "--force", c.ID)
}

// clear removes what is left of a container.
func (t *Table) clear(c *Container) error {
	k := t.kernel
	t.disconnect(c)
	if err := k.RemoveGroup(c.cgroup()); err != nil {
		return &wire.Error{Code: wire.Fail, Text: "removing the control group of container " + c.ID, Cause: err}
	}
	if c.spec.kind == Sandbox {
		removeShared(k, c.shared)
	}
	for _, path := range []string{crunState + "/" + c.ID, folder(c.ID)} {
		if err := k.RemoveTree(path); err != nil {
			return &wire.Error{Code: wire.Fail, Text: "removing " + path, Cause: err}
		}
	}
	_ = k.RemoveDir(c.bundle) // unless there is something in it
	return nil
}

// makeShared makes a folder whose mounts spread to those who have it mounted.
func makeShared(k sys.Kernel, path string) error {
	err := k.Mkdir(path, 0o755)
	if err == nil {
		err = k.Bind(path, path, false)
	}
	if err == nil {
		err = k.MountDevice("", "", path, syscall.MS_SHARED, "")
	}
	if err != nil {
		return &wire.Error{Code: wire.Fail, Text: "making " + path, Cause: err}
	}
	return nil
}

// removeShared takes off what is mounted in a shared folder, the deepest first, and removes the folder.
func removeShared(k sys.Kernel, path string) {
	for _, target := range mountsBelow(k, path) {
		_ = k.Unmount(target)
	}
	_ = k.RemoveTree(path)
}

// mountsBelow returns the places at and below a path where something is mounted, the last mounted first.
func mountsBelow(k sys.Kernel, path string) (found []string) {
	text, _ := k.ReadFile("/proc/self/mountinfo")
	for _, line := range strings.Split(string(text), "\n") {
		fields := strings.Fields(line)
		if len(fields) > 4 {
			if target := unescape(fields[4]); target == path || strings.HasPrefix(target, path+"/") {
				found = append(found, target)
			}
		}
	}
	sort.SliceStable(found, func(i, j int) bool { return len(found[i]) > len(found[j]) })
	return found
}

// unescape reads the kernel's \040 and the like.
func unescape(text string) string {
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) {
			out = append(out, (text[i+1]-'0')<<6|(text[i+2]-'0')<<3|(text[i+3]-'0'))
			i += 3
		} else {
			out = append(out, text[i])
		}
	}
	return string(out)
}
