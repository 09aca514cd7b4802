package wire

import "strings"

// Directory is the settings of a MappedDirectory: where a folder of the host is mounted, and where it is served.
type Directory struct {
	MountPath string
	ShareName string
	Port      uint32
	ReadOnly  bool
}

// ParseDirectory reads the settings of a MappedDirectory.
func ParseDirectory(settings string) (d Directory, err error) {
	r := newJSONReader(settings)
	r.object(func(key string) {
		switch key {
		case "MountPath":
			d.MountPath = r.str()
		case "ShareName":
			d.ShareName = r.str()
		case "Port":
			d.Port = r.uint32()
		case "ReadOnly":
			d.ReadOnly = r.boolean()
		default:
			r.skip()
		}
	})
	if err = r.end(); err != nil {
		return d, err
	}
	switch {
	case !IsPlace(d.MountPath):
		err = &Error{Code: InvalidArg, Text: "MountPath must be an absolute path, and not the root: '" + d.MountPath + "'"}
	case strings.ContainsAny(d.ShareName, ",\x00"):
		err = &Error{Code: InvalidArg, Text: "ShareName has a comma or a zero byte: '" + d.ShareName + "'"}
	case d.Port == 0:
		err = &Error{Code: InvalidArg, Text: "Port is missing"}
	}
	return d, err
}

// IsPlace reports whether path is one at which something can be mounted: absolute, without "." and "..", not the root.
func IsPlace(path string) bool {
	if len(path) < 2 || path[0] != '/' || strings.IndexByte(path, 0) >= 0 {
		return false
	}
	for _, name := range strings.Split(path[1:], "/") {
		if name == "" || name == "." || name == ".." {
			return false
		}
	}
	return true
}
