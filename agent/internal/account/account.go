// Package account looks accounts up in the lists of a root file system.
package account

import (
	"strconv"
	"strings"

	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// MaxFile is the most of a list of accounts that is read, in bytes.
const MaxFile = 1024 * 1024

// Read returns one of the lists, /etc/passwd or /etc/group. One that cannot be read has no accounts.
type Read func(path string) ([]byte, error)

// Find returns the credentials for name, uid, name:group or uid:group; nil for the agent's own when who is empty.
// A uid without an account has gid 0.
func (read Read) Find(who string) (*sys.Credential, error) {
	if who == "" {
		return nil, nil
	}
	name, group, hasGroup := strings.Cut(who, ":")
	c := &sys.Credential{}
	account := read.entry("/etc/passwd", name, 2)
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
		c.Groups = read.memberships(name)
		return c, nil
	}
	if c.GID, ok = number(read.entry("/etc/group", group, 2), 2, group); !ok {
		return nil, &wire.Error{Code: wire.InvalidArg, Text: "no such group: " + who}
	}
	return c, nil
}

// Home returns the home folder of uid, "/" when it has none.
func (read Read) Home(uid uint32) string {
	key := strconv.FormatUint(uint64(uid), 10)
	for _, fields := range read.lines("/etc/passwd") {
		if fields[2] == key && len(fields) > 5 && strings.HasPrefix(fields[5], "/") {
			return fields[5]
		}
	}
	return "/"
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
func (read Read) entry(path, key string, id int) []string {
	var byNumber []string
	for _, fields := range read.lines(path) {
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
func (read Read) memberships(name string) (groups []uint32) {
	for _, fields := range read.lines("/etc/group") {
		for _, member := range strings.Split(fields[3], ",") {
			if gid, ok := number(fields, 2, ""); ok && member == name {
				groups = append(groups, gid)
			}
		}
	}
	return groups
}

// lines returns the well-formed lines of a colon-separated file, cut into fields. A missing file has none.
func (read Read) lines(path string) (out [][]string) {
	text, err := read(path)
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
