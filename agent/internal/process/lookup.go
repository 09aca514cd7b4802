package process

import (
	"strings"
	"syscall"

	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// defaultPath is where a program is looked for when the environment has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// lookPath returns the path of the program that spec names. The error is the one that says most: a file that may not be
// executed rather than one that is missing elsewhere.
func lookPath(kernel sys.Kernel, spec *Spec) (string, error) {
	name := spec.Args[0]
	if strings.IndexByte(name, '/') >= 0 {
		return name, nil
	}
	list := defaultPath
	for _, entry := range spec.Env {
		if strings.HasPrefix(entry, "PATH=") {
			list = entry[len("PATH="):]
		}
	}
	var found error = syscall.ENOENT
	for _, dir := range strings.Split(list, ":") {
		if !strings.HasPrefix(dir, "/") {
			dir = strings.TrimSuffix(spec.Dir+"/"+dir, "/") // "" means the working directory
		}
		path := dir + "/" + name
		switch err := kernel.Executable(path); err {
		case nil:
			return path, nil
		case syscall.EACCES:
			found = err
		}
	}
	return "", found
}

// codeOf returns the HRESULT of a failed start.
func codeOf(err error) wire.HResult {
	switch err {
	case syscall.ENOENT, syscall.ENOTDIR:
		return wire.FileNotFound
	case syscall.EACCES, syscall.EPERM, syscall.EISDIR, syscall.ETXTBSY:
		return wire.AccessDenied
	case syscall.ENOEXEC:
		return wire.BadFormat
	case syscall.E2BIG, syscall.EINVAL, syscall.ENAMETOOLONG:
		return wire.InvalidArg
	}
	return wire.CodeOf(err)
}
