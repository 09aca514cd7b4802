package container

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"utilityvm/agent/internal/sys"
	"utilityvm/agent/internal/sys/systest"
	"utilityvm/agent/wire"
)

// object parses JSON as the standard library does.
func object(t testing.TB, text string) map[string]any {
	t.Helper()
	var o map[string]any
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return o
}

func parsed(t testing.TB, text string) *spec {
	t.Helper()
	o, err := wire.ParseObject(text)
	if err != nil {
		t.Fatal(err)
	}
	s, err := readSpec(o, "/run/gcs/c/c")
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return s
}

// at follows a path of names into JSON.
func at(o any, path ...string) any {
	for _, name := range path {
		m, _ := o.(map[string]any)
		o = m[name]
	}
	return o
}

const plain = `{"ociVersion":"1.2.0","process":{"args":["a"],"novelty":{"x":[1]},"user":{"uid":7,"gid":8,"umask":18}},"root":{"path":"rootfs","new":1},
"linux":{"namespaces":[{"type":"pid"},{"type":"mount","more":true}],"seccomp":{"defaultAction":"SCMP_ACT_ERRNO"},"resources":{"memory":{"limit":1e9}}},"windows":{"network":{}},"vm":{"kernel":"x"},
"annotations":{"a.b":"c"},"mounts":[{"destination":"/proc","type":"proc","options":["a"]}]}`

func TestWhatTheAgentDoesNotKnowReachesCrunAsItCame(t *testing.T) {
	s := parsed(t, plain)
	want, got := object(t, plain), object(t, s.encode("c"))
	for _, path := range [][]string{{"process"}, {"annotations"}, {"mounts"}, {"vm"}, {"linux", "namespaces"}, {"linux", "seccomp"}, {"linux", "resources", "memory"}, {"root", "new"}} {
		if !reflect.DeepEqual(at(want, path...), at(got, path...)) {
			t.Errorf("%v: %v, and was %v", path, at(got, path...), at(want, path...))
		}
	}
	if got["windows"] != nil || got["ociVersion"] != "1.0.2" || at(got, "root", "path") != "/run/gcs/c/c/rootfs" ||
		at(got, "linux", "cgroupsPath") != "/containers/c" {
		t.Errorf("%v", got)
	}
	if rules := at(got, "linux", "resources", "devices"); !reflect.DeepEqual(rules, []any{map[string]any{"allow": false, "access": "rwm"}}) {
		t.Errorf("without rules for devices all are allowed: %v", rules)
	}
}

func TestAMistakeInASpecificationIsNamed(t *testing.T) {
	for text, want := range map[string]string{
		`{"root":{"path":"r"}}`:                                                                                  "process is missing",
		`{"process":{"args":["a"]}}`:                                                                             "root.path",
		`{"process":{"a":1},"root":{"path":"../../.."}}`:                                                         "root.path",
		`{"process":{"a":1},"root":{"path":"/"}}`:                                                                "root.path",
		`{"process":{"terminal":1},"root":{"path":"r"}}`:                                                         "terminal: invalid JSON",
		`{"process":{"user":[]},"root":{"path":"r"}}`:                                                            "user: invalid JSON",
		`{"process":{"a":1},"root":{"path":"r"},"windows":{"devices":[{"id":"g","idType":"gpu"}]}}`:              "windows.devices: this guest has no VMBus",
		`{"process":{"a":1},"root":{"path":"r"},"windows":{"devices":7}}`:                                        "devices: invalid JSON",
		`{"process":{"a":1},"root":{"path":"r"},"linux":7}`:                                                      "linux: invalid JSON",
		`{"process":{"a":1},"root":{"path":"r"},"mounts":{}}`:                                                    "mounts: invalid JSON",
		`{"process":{"a":1},"root":{"path":"r"},"hostname":"a\nb"}`:                                              "hostname",
		`{"process":{"a":1},"root":{"path":"r"},"hostname":"` + strings.Repeat("a", 65) + `"}`:                   "hostname",
		`{"process":{"a":1},"root":{"path":"r"},"annotations":{"io.kubernetes.cri.container-type":"cat"}}`:       "unsupported 'io.kubernetes.cri.container-type': 'cat'",
		`{"process":{"a":1},"root":{"path":"r"},"annotations":{"io.kubernetes.cri.container-type":"container"}}`: "unsupported 'io.kubernetes.cri.sandbox-id': ''",
		`{"process":{"a":1},"root":{"path":"r"},"hostname":"h","annotations":{"io.kubernetes.cri.container-type":"container","io.kubernetes.cri.sandbox-id":"s"}}`: "workload container must not change hostname: h",
	} {
		o, err := wire.ParseObject(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = readSpec(o, "/run/gcs/c/c"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func TestAWorkloadJoinsWhatItsSandboxHas(t *testing.T) {
	for text, want := range map[string]string{
		`[]`: `network=/proc/42/ns/net ipc=/proc/42/ns/ipc uts=/proc/42/ns/uts pid=/proc/42/ns/pid`,
		`[{"type":"pid"},{"type":"mount"},{"type":"network"}]`:        `pid= mount= network=/proc/42/ns/net ipc=/proc/42/ns/ipc uts=/proc/42/ns/uts`,
		`[{"type":"network","path":"/n"},{"type":"pid","path":"/p"}]`: `network=/n pid=/p ipc=/proc/42/ns/ipc uts=/proc/42/ns/uts`,
	} {
		s := parsed(t, `{"process":{"a":1},"root":{"path":"r"},"linux":{"namespaces":`+text+`}}`)
		if err := s.join(42); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range at(object(t, s.encode("c")), "linux", "namespaces").([]any) {
			path, _ := at(n, "path").(string)
			got = append(got, at(n, "type").(string)+"="+path)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %s", text, got)
		}
		if owns := strings.Contains(text, `"pid"}`); s.ownsProcesses() != owns {
			t.Errorf("%s: owns its processes: %v", text, !owns)
		}
	}
}

func TestAUserIsFoundInTheContainersOwnLists(t *testing.T) {
	k := &systest.Kernel{Files: map[string]string{
		"/run/gcs/c/c/rootfs/etc/passwd": "ann:x:1000:100::/:\n", "/run/gcs/c/c/rootfs/etc/group": "wheel:x:10:ann\n", "/etc/passwd": "ann:x:1:1::/:\n",
	}}
	for _, text := range []string{
		`{"process":{"user":{"username":"ann","additionalGids":[5],"umask":2}},"root":{"path":"rootfs"}}`,
		`{"process":{"user":{"uid":3,"additionalGids":[5],"umask":2}},"root":{"path":"rootfs"},"annotations":{"io.microsoft.lcow.userstr":"ann"}}`,
		`{"process":{"user":{"username":"ann","additionalGids":[5],"umask":2}},"root":{"path":"rootfs"},"annotations":{"io.microsoft.lcow.userstr":"bob"}}`,
	} {
		s := parsed(t, text)
		if err := resolveUser(k, s.root, s.who, &s.process); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{"uid": 1000.0, "gid": 100.0, "additionalGids": []any{5.0, 10.0}, "umask": 2.0}
		if got := at(object(t, s.encode("c")), "process", "user"); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v", text, got)
		}
	}
	s := parsed(t, `{"process":{"user":{"username":"eve"}},"root":{"path":"rootfs"}}`)
	if err := resolveUser(k, s.root, s.who, &s.process); wire.CodeOf(err) != wire.InvalidArg || err.Error() != "no such user: eve" {
		t.Error(err)
	}
}

func TestADeviceHasTheNumbersOfThisMachine(t *testing.T) {
	k := &systest.Kernel{Files: map[string]string{"/dev/fuse": "c 10 229", "/dev/sda": "b 8 0", "/dev/mapper/control": "c 10 236", "/dev/pts/0": "c 136 0"}}
	s := parsed(t, `{"process":{"a":1},"root":{"path":"r"},"linux":{"devices":[{"path":"/dev/fuse","type":"c","major":1,"minor":2,"fileMode":438},
		{"path":"/dev/own","type":"c","major":240}],"resources":{"devices":[{"allow":false,"access":"rwm","mark":1}]}}}`)
	if err := s.resolveDevices(k); err != nil {
		t.Fatal(err)
	}
	got := object(t, s.encode("c"))
	fuse := at(got, "linux", "devices").([]any)[0]
	if at(fuse, "major") != 10.0 || at(fuse, "minor") != 229.0 || at(fuse, "fileMode") != 438.0 {
		t.Errorf("%v", fuse)
	}
	rules := at(got, "linux", "resources", "devices").([]any)
	if len(rules) != 3 || at(rules[0], "mark") != 1.0 || at(rules[1], "major") != 10.0 || at(rules[2], "major") != 240.0 || at(rules[2], "minor") != 0.0 ||
		at(rules[1], "access") != "rwm" || at(rules[1], "allow") != true {
		t.Errorf("%v", rules)
	}
	s = parsed(t, `{"process":{"a":1},"root":{"path":"r"},"linux":{"devices":[{"path":"/dev/none"}]}}`)
	if err := s.resolveDevices(k); wire.CodeOf(err) != wire.InvalidArg || !strings.Contains(err.Error(), "device /dev/none") {
		t.Error(err)
	}
	s = parsed(t, `{"process":{"a":1},"root":{"path":"r"},"annotations":{"io.microsoft.virtualmachine.lcow.privileged":"true"}}`)
	if err := s.resolveDevices(k); err != nil {
		t.Fatal(err)
	}
	got = object(t, s.encode("c"))
	var paths []string
	for _, d := range at(got, "linux", "devices").([]any) {
		paths = append(paths, at(d, "path").(string))
	}
	if want := []string{"/dev/fuse", "/dev/mapper/control", "/dev/sda"}; !reflect.DeepEqual(paths, want) {
		t.Errorf("%v", paths)
	}
	if rules := at(got, "linux", "resources", "devices"); !reflect.DeepEqual(rules, []any{map[string]any{"allow": true, "access": "rwm"}}) {
		t.Errorf("%v", rules)
	}
}

func TestTheFilesThatSayWhoItIsAreMountedUnlessTheSpecificationDoes(t *testing.T) {
	k := &systest.Kernel{}
	s := parsed(t, `{"process":{"a":1},"root":{"path":"r","readonly":true},"mounts":[{"destination":"/etc/hosts/","source":"/h"}]}`)
	s.bindFiles(k, "box")
	var got []string
	for _, m := range at(object(t, s.encode("c")), "mounts").([]any)[1:] {
		got = append(got, at(m, "source").(string)+" "+at(m, "destination").(string))
		if options := at(m, "options").([]any); options[len(options)-1] != "ro" {
			t.Errorf("%v", m)
		}
	}
	want := []string{"/run/utilityvm/containers/box/hostname /etc/hostname", "/run/utilityvm/containers/box/resolv.conf /etc/resolv.conf"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	k.ReadOnly, k.Files = map[string]bool{"/run/gcs/c/c/r": true}, map[string]string{"/run/gcs/c/c/r/etc/resolv.conf": ""}
	s = parsed(t, `{"process":{"a":1},"root":{"path":"r"}}`)
	if s.bindFiles(k, "c"); len(s.mounts) != 1 || !s.mountsAt("/etc/resolv.conf") {
		t.Errorf("a root that cannot be written and has no place for them: %v", s.mounts)
	}
}

func TestTheHostsFileHasTheNameAndItsFirstLabel(t *testing.T) {
	for name, want := range map[string]string{"box": "127.0.0.1 box\n", "box.example.org": "127.0.0.1 box.example.org box\n"} {
		if text := hostsFile(name); !strings.HasPrefix(text, "127.0.0.1 localhost\n"+want+"\n") || strings.Count(text, "\n::1 ")+strings.Count(text, "\nf") != 5 {
			t.Errorf("%s", text)
		}
	}
}

func TestSharedFoldersStayInTheirSandbox(t *testing.T) {
	k := &systest.Kernel{}
	s := parsed(t, `{"process":{"a":1},"root":{"path":"r"},"mounts":[{"destination":"/a","source":"sandbox://x/y"},{"destination":"/b","source":"sandbox:///"},{"destination":"/c","source":"/v"}]}`)
	if err := s.shareMounts(k, "/s"); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range s.mounts {
		source, _ := m.String("source")
		got = append(got, source)
	}
	if want := []string{"/s/x/y", "/s", "/v"}; !reflect.DeepEqual(got, want) || !reflect.DeepEqual(k.Calls, []string{"folders /s x/y 755"}) {
		t.Errorf("%q %q", got, k.Calls)
	}
	for _, source := range []string{"sandbox://../x", "sandbox://..", "sandbox://a/../../x", "sandbox://a//b", "sandbox://a/./b", "sandbox://../sandboxMountsX"} {
		s := parsed(t, `{"process":{"a":1},"root":{"path":"r"},"mounts":[{"destination":"/a","source":"`+source+`"}]}`)
		if err := s.shareMounts(k, "/s"); err == nil || !strings.Contains(err.Error(), "is not within sandbox's mounts dir") {
			t.Errorf("%s: %v", source, err)
		}
	}
	s = parsed(t, `{"process":{"a":1},"root":{"path":"r"},"mounts":[{"destination":"/a","source":"sandbox://x"}]}`)
	if err := s.shareMounts(k, ""); err == nil || !strings.Contains(err.Error(), "is in no sandbox") {
		t.Error(err)
	}
}

func FuzzSpec(f *testing.F) {
	f.Add(plain)
	f.Add(`{"process":{"user":{"username":"ann"}},"root":{"path":"/x"},"linux":{"devices":[{"path":"/dev/null"}],"namespaces":[{"type":"pid","path":"/p"}]},"mounts":[{"source":"sandbox://a"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		o, err := wire.ParseObject(text)
		if err != nil {
			return
		}
		s, err := readSpec(o, "/run/gcs/c/c")
		if err != nil {
			return
		}
		k := &systest.Kernel{Files: map[string]string{"/dev/null": "c 1 3"}}
		_ = s.resolveDevices(k)
		_ = s.shareMounts(k, "/s")
		_ = s.join(1)
		_ = runAs(&s.process, &sys.Credential{UID: 1, Groups: []uint32{2}})
		s.bindFiles(k, "c")
		if out := s.encode("c"); !json.Valid([]byte(out)) {
			t.Fatalf("%q became %q", text, out)
		}
		for _, call := range k.Calls {
			for _, name := range strings.Split(strings.TrimSuffix(call, " 755"), "/") {
				if name == ".." {
					t.Fatal(call)
				}
			}
		}
	})
}

func TestAPlaceOfTheRootThatIsNoFolderIsRefusedBeforeCrunMountsOverIt(t *testing.T) {
	const mounts = `{"process":{"args":["a"]},"root":{"path":"/r"},"mounts":[{"destination":"/proc","type":"proc"},{"destination":"/dev/","type":"tmpfs"},
		{"destination":"/f","type":"bind","source":"/x"},{"destination":"/a/b","type":"tmpfs"}]}`
	for place, says := range map[string]string{"/r/proc": "mount /proc: /proc of the container's root is no folder", "/r/dev": "mount /dev: ", "/r/f": "", "/r/a/b": "", "/r/proc/1": ""} {
		err := parsed(t, mounts).checkPlaces(&systest.Kernel{Files: map[string]string{place: "a link"}})
		if (says == "") != (err == nil) || err != nil && !strings.HasPrefix(err.Error(), says) {
			t.Errorf("%s: %v", place, err)
		}
	}
}
