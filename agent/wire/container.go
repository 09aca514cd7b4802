package wire

import "strconv"

// maxContainerID is the longest id of a container, in bytes; it becomes a folder's name.
const maxContainerID = 128

// Creation is the body of Create. Config is the JSON text of a Document.
type Creation struct {
	Request
	Config string
}

// ParseCreation reads the body of Create.
func ParseCreation(body []byte) (q Creation, err error) {
	r := newJSONReader(string(body))
	r.object(func(key string) {
		if key == "ContainerConfig" {
			q.Config = r.str()
		} else {
			q.member(r, key)
		}
	})
	return q, r.end()
}

// Document says what a container is to be: its specification, and the folder of its bundle.
type Document struct {
	Bundle string
	Spec   Object
}

// ParseDocument reads the text of Creation.Config.
func ParseDocument(text string) (d Document, err error) {
	var major, minor uint32
	var spec string
	r := newJSONReader(text)
	version := func(key string) {
		switch key {
		case "Major":
			major = r.uint32()
		case "Minor":
			minor = r.uint32()
		default:
			r.skip()
		}
	}
	r.object(func(key string) {
		switch key {
		case "SchemaVersion":
			r.object(version)
		case "OciBundlePath":
			d.Bundle = r.str()
		case "OciSpecification":
			spec = r.raw()
		default:
			r.skip()
		}
	})
	if err = r.end(); err != nil {
		return d, err
	}
	if major < 2 || major == 2 && minor < 1 {
		said := strconv.Itoa(int(major)) + "." + strconv.Itoa(int(minor))
		return d, &Error{Code: InvalidJSON, Text: "invalid schema version: " + said + ", and at least 2.1 is needed"}
	}
	if spec == "" {
		return d, &Error{Code: InvalidArg, Text: "OciSpecification is missing"}
	}
	d.Spec, err = ParseObject(spec)
	return d, within("OciSpecification", err)
}

// IsContainerID reports whether a container may have this id: letters, digits, "_", "-", ".", "+", and neither "." nor "..".
func IsContainerID(id string) bool {
	if id == "" || len(id) > maxContainerID || id == "." || id == ".." {
		return false
	}
	for i := 0; i < len(id); i++ {
		c := id[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && c != '_' && c != '-' && c != '.' && c != '+' {
			return false
		}
	}
	return true
}

// Layers are the settings of CombinedLayers: a root file system made of read-only layers, the topmost first, and of a scratch folder
// that takes what is written; without one the root is read-only.
type Layers struct {
	Root    string
	Scratch string
	Paths   []string
}

// ParseLayers reads the settings of CombinedLayers.
func ParseLayers(settings string) (l Layers, err error) {
	r := newJSONReader(orNothing(settings))
	layer := func() {
		path := ""
		r.object(func(key string) {
			if key == "Path" {
				path = r.str()
			} else {
				r.skip()
			}
		})
		l.Paths = append(l.Paths, path)
	}
	r.object(func(key string) {
		switch key {
		case "ContainerRootPath":
			l.Root = r.str()
		case "ScratchPath":
			l.Scratch = r.str()
		case "Layers":
			r.list('[', ']', layer)
		default:
			r.skip()
		}
	})
	return l, r.end()
}

// ExitType says in which way a container came to its end.
type ExitType string

// The ways to end, told by the notification; NoExit is none.
const (
	NoExit         ExitType = "None"
	UnexpectedExit ExitType = "UnexpectedExit" // by itself, for whatever reason
	GracefulExit   ExitType = "GracefulExit"   // it was asked to
	ForcedExit     ExitType = "ForcedExit"     // it was made to
)

// Notification tells of a container's end.
type Notification struct {
	ContainerID string
	ActivityID  string
	Type        ExitType
	OOMKills    uint64 // how many of its processes were killed because memory had run out
}

// AppendNotification appends the JSON text of n.
func AppendNotification(b []byte, n Notification) []byte {
	if n.ActivityID == "" {
		n.ActivityID = NullGUID
	}
	b = AppendString(append(b, `{"ContainerId":`...), n.ContainerID)
	b = AppendString(append(b, `,"ActivityId":`...), n.ActivityID)
	b = AppendString(append(b, `,"Type":`...), string(n.Type))
	b = append(b, `,"Operation":"None","Result":0,"ResultInfo":`...)
	if n.OOMKills == 0 {
		return append(b, `""}`...)
	}
	return append(AppendString(b, `{"OomKills":`+strconv.FormatUint(n.OOMKills, 10)+`}`), '}')
}
