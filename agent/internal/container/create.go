package container

import (
	"strings"
	"syscall"

	"utilityvm/agent/internal/account"
	"utilityvm/agent/internal/process"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// bundles is where the bundles of containers are, each in a folder of its own or deeper.
const bundles = "/run/gcs/"

// Create makes a container whose first process waits to be started. Its id is taken until Delete, or until done says that it failed.
func (t *Table) Create(id, activity string, d *wire.Document, tell Tell, done func(error)) {
	c, err := t.admit(id, d)
	if err != nil {
		done(err)
		return
	}
	c.activity, c.tell = activity, tell
	t.byID[id] = c
	fail := func(err error) {
		delete(t.byID, id)
		done(err)
	}
	var config string
	t.loop.Beside(func() (err error) {
		if err = t.crun.Do(t.openCrun); err == nil {
			config, err = t.prepare(c)
		}
		return err
	}, func(err error) {
		if err != nil {
			t.sweep(c, func(error) { fail(err) })
			return
		}
		t.fill(c.spec.root, c.spec.fillings, func(err error) {
			if err == nil {
				err = t.make(c, config, done, fail)
			}
			if err != nil {
				t.sweep(c, func(error) { fail(err) })
			}
		})
	})
}

// admit checks what can be checked without looking at the machine.
func (t *Table) admit(id string, d *wire.Document) (*Container, error) {
	switch {
	case !wire.IsContainerID(id):
		return nil, invalid("ContainerId must be a name of at most 128 letters, digits and _-.+: '" + id + "'")
	case t.byID[id] != nil:
		return nil, &wire.Error{Code: wire.SystemAlreadyExists, Text: "there is a container " + id + " already"}
	case len(t.byID) == maxContainers:
		return nil, &wire.Error{Code: wire.Fail, Text: "there are 512 containers already"}
	case !wire.IsPlace(d.Bundle) || !strings.HasPrefix(d.Bundle, bundles):
		return nil, invalid("OciBundlePath must be a folder below " + bundles + ": '" + d.Bundle + "'")
	}
	s, err := readSpec(d.Spec, d.Bundle)
	if err != nil {
		return nil, err
	}
	c := &Container{ID: id, spec: s, bundle: d.Bundle, state: Creating, exit: wire.UnexpectedExit}
	switch s.kind {
	case Workload:
		err = t.enter(c)
	case Sandbox:
		c.shared = c.bundle + "/sandboxMounts"
	}
	if err == nil && s.network != "" && !t.networks.Known(s.network) {
		err = &wire.Error{Code: wire.NotFound, Text: "namespace '" + s.network + "' not found"}
	}
	return c, err
}

// enter makes a workload share the namespaces of its sandbox, which alone has a network namespace then.
func (t *Table) enter(c *Container) error {
	box, err := t.Find(c.spec.sandbox)
	if err != nil {
		return err
	}
	if box.spec.kind != Sandbox {
		return invalid(sandboxAnnotation + ": " + box.ID + " is no sandbox")
	}
	if err := box.must("joined", Created, Starting, Running, Switching, Paused); err != nil {
		return err
	}
	if c.spec.network != "" && c.spec.network != box.spec.network {
		return invalid("network namespace " + c.spec.network + ": a workload is in that of its sandbox, '" + box.spec.network + "'")
	}
	c.shared, c.spec.network = box.shared, ""
	return c.spec.join(box.first.PID())
}

// prepare makes the container's files and returns the specification for crun; beside the loop.
func (t *Table) prepare(c *Container) (string, error) {
	k, s := t.kernel, c.spec
	// What an earlier container of this name has left is nobody's any more.
	if err := k.RemoveTree(folder(c.ID)); err != nil {
		return "", &wire.Error{Code: wire.Fail, Text: "emptying " + folder(c.ID), Cause: err}
	}
	if err := k.MakeDir(folder(c.ID), 0o700); err != nil {
		return "", &wire.Error{Code: wire.Fail, Text: "folder " + folder(c.ID), Cause: err}
	}
	if err := sys.MakeFolders(k, c.bundle, 0o700); err != nil {
		return "", err
	}
	if err := s.checkPlaces(k); err != nil {
		return "", err
	}
	if s.process.Text("env") == "" {
		s.process.Set("env", "[]")
	}
	if err := resolveUser(k, s.root, s.who, &s.process); err != nil {
		return "", err
	}
	if err := s.resolveDevices(k); err != nil {
		return "", err
	}
	if s.kind == Sandbox {
		if err := makeShared(k, c.shared); err != nil {
			return "", err
		}
	}
	if err := s.shareMounts(k, c.shared); err != nil {
		return "", err
	}
	owner := s.sandbox
	if s.kind != Workload {
		owner = c.ID
		if err := writeFiles(k, owner, s.hostname, t.servers(s)); err != nil {
			return "", err
		}
	}
	s.bindFiles(k, owner)
	return s.encode(c.ID), nil
}

// resolveUser puts a user's numbers in the place of its name, as the lists in the container's own root have it, and says where its home is.
// crun would look for that as well, but opens whatever is in the list's place: of a pipe it would never come back.
func resolveUser(k sys.Kernel, root, who string, of *wire.Object) error {
	read := account.Read(func(path string) ([]byte, error) { return k.ReadBelow(root, path, account.MaxFile) })
	found, err := read.Find(who)
	if err == nil && found != nil {
		err = runAs(of, found)
	}
	if err != nil {
		return err
	}
	user, err := of.Object("user")
	if err != nil {
		return err
	}
	uid, err := user.Uint32("uid")
	if err != nil {
		return err
	}
	return setHome(of, func() string { return read.Home(uid) })
}

// make lets crun make the container. An error that it returns is of the time before crun; later ones are told to fail.
func (t *Table) make(c *Container, config string, done, fail func(error)) error {
	e := t.errand(c)
	if err := t.kernel.CreateFile(e.path+".json", config, 0o600); err != nil {
		return &wire.Error{Code: wire.Fail, Text: "writing the specification", Cause: err}
	}
	words, err := e.open("create", c.spec.terminal, process.Wanted{true, true, true})
	if err != nil {
		return err
	}
	words = append(words, "--no-pivot", "--bundle", c.bundle, "--config", e.path+".json", c.ID)
	e.bear(words, true, c.ID, func() { t.ended(c) }, func() { t.finish(c) }, func(p *process.Process, err error) {
		if err != nil {
			t.sweep(c, func(error) { fail(err) })
			return
		}
		c.first, c.streams, c.said = p, e.streams, e.said
		t.processes.Hold(p, func() {})
		t.connect(c, func(err error) {
			if err != nil {
				t.unmake(c, func() { fail(err) })
				return
			}
			c.state = Created
			t.processes.Begin(p)
			done(nil)
		})
	})
	return nil
}

// servers returns the resolv.conf of a container: that of its network namespace, or the machine's.
func (t *Table) servers(s *spec) string {
	if s.network != "" {
		return t.networks.Resolver(s.network)
	}
	servers, _ := t.kernel.ReadFile("/etc/resolv.conf") // a machine without a network has none
	return string(servers)
}

// connect puts the adapters of the container's network namespace, if it names one, into that of its first process.
func (t *Table) connect(c *Container, then func(error)) {
	if c.spec.network == "" {
		then(nil)
		return
	}
	t.loop.Beside(func() error { return t.networks.Assign(t.kernel, c.spec.network, c.first.PID()) }, then)
}

// disconnect lets the adapters go that connect has put there; beside the loop.
func (t *Table) disconnect(c *Container) {
	if c.spec.network != "" && c.first != nil {
		t.networks.Release(t.kernel, c.spec.network, c.first.PID())
	}
}

// unmake ends a container of which the host was told nothing, and calls then when nothing is left of it.
func (t *Table) unmake(c *Container, then func()) {
	c.told = true
	c.whenOver = append(c.whenOver, func() {
		t.processes.Forget(c.ID)
		t.sweep(c, func(error) { then() })
	})
	_ = t.kernel.Kill(c.first.PID(), int(syscall.SIGKILL))
	t.processes.Hurry(c.ID, 0)
	t.processes.Begin(c.first)
}
