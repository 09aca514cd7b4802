package process

import (
	"strconv"
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
	case syscall.EACCES, syscall.EPERM, syscall.ENOEXEC, syscall.EISDIR, syscall.ETXTBSY:
		return wire.AccessDenied
	case syscall.E2BIG, syscall.EINVAL, syscall.ENAMETOOLONG:
		return wire.InvalidArg
	}
	return wire.CodeOf(err)
}

// users looks accounts up.
type users struct{ kernel sys.Kernel }

// find returns the credentials for name, uid, name:group or uid:group; nil for the agent's own when who is empty.
// A uid without an account has gid 0.
func (u users) find(who string) (*sys.Credential, error) {
	if who == "" {
		return nil, nil
	}
	name, group, hasGroup := strings.Cut(who, ":")
	c := &sys.Credential{}
	account := u.entry("/etc/passwd", name, 2)
	if account != nil {
		name = account[0]
	}
	uid, ok := number(account, 2, name)
	if !ok {
		return nil, &wire.Error{Code: wire.InvalidArg, Text: "no such user: " + who}
	}
	c.UID = uid
	c.GID, _ = number(account, 3, "0")
	if !hasGroup {
		c.Groups = u.memberships(name)
		return c, nil
	}
	if c.GID, ok = number(u.entry("/etc/group", group, 2), 2, group); !ok {
		return nil, &wire.Error{Code: wire.InvalidArg, Text: "no such group: " + who}
	}
	return c, nil
}

// number returns field i of entry, or the number other when there is no entry.
func number(entry []string, i int, other string) (uint32, bool) {
	if entry != nil {
		other = entry[i]
	}
	n, err := strconv.ParseUint(other, 10, 32)
	return uint32(n), err == nil
}

// entry returns the line of a colon-separated file whose name, or else whose number in the field id, is key.
func (u users) entry(path, key string, id int) []string {
	var byNumber []string
	for _, fields := range u.lines(path) {
		if fields[0] == key {
			return fields
		}
		if fields[id] == key && byNumber == nil {
			byNumber = fields
		}
	}
	return byNumber
}

// memberships returns the groups that list the account name.
func (u users) memberships(name string) (groups []uint32) {
	for _, fields := range u.lines("/etc/group") {
		for _, member := range strings.Split(fields[3], ",") {
			if gid, ok := number(fields, 2, ""); ok && member == name {
				groups = append(groups, gid)
			}
		}
	}
	return groups
}

// lines returns the well-formed lines of a colon-separated file, cut into fields. A missing file has none.
func (u users) lines(path string) (out [][]string) {
	text, err := u.kernel.ReadFile(path)
	if err != nil {
		return nil
	}
	for _, line := range strings.Split(string(text), "\n") {
		if fields := strings.Split(line, ":"); len(fields) >= 4 && !strings.HasPrefix(line, "#") {
			out = append(out, fields)
		}
	}
	return out
}
