package container

import (
	"strings"

	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// copyOption is an option of a bind mount: its source, a folder of the machine, is made if it is not there, and while it is empty it gets
// what the container's root has in its place.
const copyOption = "copy"

const copier = "/bin/busybox"

// filling is one such mount.
type filling struct{ source, target string }

// takeFillings takes the option from the mounts that have it, and remembers them.
func (s *spec) takeFillings() error {
	for i := range s.mounts {
		options, err := s.mounts[i].Strings("options")
		if err != nil {
			return err
		}
		var others []string
		for _, option := range options {
			if option != copyOption {
				others = append(others, wire.Quoted(option))
			}
		}
		if len(others) == len(options) {
			continue
		}
		var f filling
		if f.source, err = s.mounts[i].String("source"); err == nil {
			f.target, err = s.mounts[i].String("destination")
		}
		if err != nil {
			return err
		}
		if !wire.IsPlace(f.source) || !wire.IsPlace(f.target) {
			return invalid("mount " + f.target + ": the option copy is for a folder of the utility VM, not '" + f.source + "'")
		}
		s.mounts[i].Set("options", "["+strings.Join(others, ",")+"]")
		s.fillings = append(s.fillings, f)
	}
	return nil
}

// fill makes and fills what is to be, one after the other, and then calls done.
func (t *Table) fill(root string, all []filling, done func(error)) {
	if len(all) == 0 {
		done(nil)
		return
	}
	folder := -1
	t.loop.Beside(func() (err error) {
		folder, err = t.wanting(root, all[0])
		return err
	}, func(err error) {
		next := func(err error) {
			if folder >= 0 {
				sys.Close(folder)
			}
			if err != nil {
				done(&wire.Error{Code: wire.CodeOf(err), Text: "filling what is mounted at " + all[0].target, Cause: err})
				return
			}
			t.fill(root, all[1:], done)
		}
		if err != nil || folder < 0 {
			next(err)
			return
		}
		t.copy(folder, all[0].source, next)
	})
}

// wanting makes what is to be filled, and opens the folder that it is to have the content of; -1 when it has something, or there is none.
func (t *Table) wanting(root string, f filling) (folder int, err error) {
	if err := sys.MakeFolders(t.kernel, f.source, 0o755); err != nil {
		return -1, err
	}
	names, err := t.kernel.ReadDir(f.source)
	if err != nil {
		return -1, &wire.Error{Code: wire.Fail, Text: "reading " + f.source, Cause: err}
	}
	if len(names) > 0 {
		return -1, nil
	}
	folder, err = t.kernel.OpenFolderBelow(root, f.target)
	if err != nil {
		return -1, nil // it is no folder there, or not yet
	}
	return folder, nil
}

// copy copies what is in an open folder to another folder, with its owner and rights.
func (t *Table) copy(folder int, target string, done func(error)) {
	said, err := listen(t.loop, "busybox")
	if err != nil {
		done(err)
		return
	}
	files := t.processes.Null()
	files[2] = said.theirs
	c := &sys.Command{Path: copier, Args: []string{"cp", "-a", ownFile(folder) + "/.", target}, Env: crunEnvironment, Dir: "/", Files: files}
	_, err = t.processes.Launch(c, func(code int) {
		said.handed()
		var err error
		if code != 0 {
			err = said.failure(code)
		}
		said.close()
		done(err)
	})
	if err != nil {
		said.close()
		done(&wire.Error{Code: wire.Fail, Text: "running " + copier, Cause: err})
	}
}
