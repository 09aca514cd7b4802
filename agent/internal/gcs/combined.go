package gcs

import (
	"strconv"
	"strings"
	"syscall"

	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// maxMountData is the most of a mount's data, in bytes: the kernel takes a page, and ends it with a zero.
const maxMountData = 4095

// combinedLayers makes a container's root file system of layers, or takes it off.
func combinedLayers(c *call, q *wire.Modify) {
	l, err := wire.ParseLayers(q.Settings)
	if err == nil && l.Root == "" {
		err = invalid("cannot have empty rootfsPath")
	}
	if err == nil && !wire.IsPlace(l.Root) {
		err = invalid("ContainerRootPath must be an absolute path, and not the root: '" + l.Root + "'")
	}
	if err != nil {
		c.fail(err)
		return
	}
	k := c.bridge.machine.Kernel
	switch q.RequestType {
	case "Add":
		data, err := overlayData(&l)
		if err != nil {
			c.fail(err)
			return
		}
		c.beside(q, func() error { return combine(k, &l, data) })
	case "Remove":
		c.beside(q, func() error {
			err := unmount(k, l.Root)
			if err == nil {
				_ = k.RemoveDir(l.Root[:strings.LastIndexByte(l.Root, '/')]) // the bundle's folder, unless there is something in it
			}
			return err
		})
	default:
		c.refuseRequest(q)
	}
}

// overlayData is what the overlay is told. Paths cannot have what separates them.
func overlayData(l *wire.Layers) (string, error) {
	if len(l.Paths) == 0 {
		return "", invalid("Layers: at least one is needed")
	}
	paths := l.Paths
	if l.Scratch != "" {
		paths = append([]string{l.Scratch}, paths...)
	}
	for _, path := range paths {
		if !wire.IsPlace(path) || strings.ContainsAny(path, ":,\\") {
			return "", invalid("the path of a layer or of the scratch folder must be absolute and have no colon, comma or backslash in it: '" + path + "'")
		}
	}
	data := "lowerdir=" + strings.Join(l.Paths, ":")
	if l.Scratch != "" {
		data += ",upperdir=" + l.Scratch + "/upper,workdir=" + l.Scratch + "/work"
	}
	if len(data) > maxMountData {
		return "", invalid("Layers: the paths of " + strconv.Itoa(len(l.Paths)) + " layers take " + strconv.Itoa(len(data)) +
			" bytes, more than the " + strconv.Itoa(maxMountData) + " that the kernel takes: mount them at shorter paths")
	}
	return data, nil
}

// combine mounts the overlay. What it has made is removed when that fails, and nothing else.
func combine(k sys.Kernel, l *wire.Layers, data string) (err error) {
	if err := sys.LoadModules(k, "overlay"); err != nil {
		return err
	}
	var made []string
	defer func() {
		for i := len(made) - 1; i >= 0 && err != nil; i-- {
			_ = k.RemoveDir(made[i])
		}
	}()
	folders := []string{l.Root}
	if l.Scratch != "" {
		folders = append(folders, l.Scratch+"/upper", l.Scratch+"/work")
	}
	for _, path := range folders {
		if err := sys.MakeFolders(k, path[:strings.LastIndexByte(path, '/')], 0o755); err != nil {
			return err
		}
		switch err := k.MakeDir(path, 0o755); err {
		case nil:
			made = append(made, path)
		case syscall.EEXIST:
		default:
			return &wire.Error{Code: wire.Fail, Text: "folder " + path, Cause: err}
		}
	}
	switch {
	case l.Scratch != "":
		err = k.MountDevice("overlay", "overlay", l.Root, 0, data)
	case len(l.Paths) == 1: // an overlay needs two folders
		err = k.Bind(l.Paths[0], l.Root, true)
	default:
		err = k.MountDevice("overlay", "overlay", l.Root, syscall.MS_RDONLY, data)
	}
	if err != nil {
		return &wire.Error{Code: wire.Fail, Text: "failed to mount container root filesystem using overlayfs " + l.Root, Cause: err}
	}
	return nil
}
