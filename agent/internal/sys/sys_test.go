package sys

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// started runs c by way of spawn, with a pipe as its standard output, and returns what it wrote and its exit code.
func started(t *testing.T, way func(*Command) (Child, error), c Command) (string, int, error) {
	t.Helper()
	null, err := OpenNull()
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs, err := Pipe(true)
	if err != nil {
		t.Fatal(err)
	}
	c.Files = [3]int{null, theirs, null}
	child, err := way(&c)
	Close(null)
	Close(theirs)
	defer Close(ours)
	if err != nil {
		return "", 0, err
	}
	defer Close(child.Event)
	var text []byte
	piece := make([]byte, 4096)
	for {
		n, errno := Read(ours, piece)
		if errno == Again {
			time.Sleep(time.Millisecond)
			continue
		}
		if n == 0 {
			break
		}
		text = append(text, piece[:n]...)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(child.PID, &status, 0, nil); err != nil {
		t.Fatal(err)
	}
	return string(text), status.ExitStatus(), nil
}

// ignored returns the line of the signals that whoever runs the tests has told us to ignore: a child inherits those.
func ignored(t *testing.T) string {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(status), "SigIgn:")
	line, _, _ = strings.Cut(line, "\n")
	return "SigIgn:" + line + "\n"
}

// Both ways to start a process must do the same.
func TestBothWaysToStartAProcess(t *testing.T) {
	ways := map[string]func(*Command) (Child, error){"forkExec": forkExec, "spawn": spawn}
	if _, err := spawn(&Command{Path: "/no/such", Dir: "/"}); err == syscall.ENOSYS {
		delete(ways, "spawn") // a sandbox forbids it, or it is not for this machine
	}
	folder := t.TempDir()
	plain := folder + "/plain"
	if err := os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			script := `pwd; echo $A $#; cut -d" " -f6 /proc/$$/stat; echo $$; grep SigBlk /proc/self/status; grep SigIgn /proc/self/status; exit 7`
			text, code, err := started(t, way, Command{Path: "/bin/sh", Args: []string{"sh", "-c", script, "0", "1"}, Env: []string{"A=b", "PATH=/bin:/usr/bin"}, Dir: folder})
			lines := strings.Split(text, "\n")
			if err != nil || code != 7 || len(lines) != 7 || lines[0] != folder || lines[1] != "b 1" || lines[2] != lines[3] {
				t.Errorf("%q %d %v", text, code, err)
			}
			if !strings.HasSuffix(text, "SigBlk:\t0000000000000000\n"+ignored(t)) {
				t.Errorf("signals are not as a new program expects them: %q", text)
			}
			for path, want := range map[string]error{"/no/such": syscall.ENOENT, plain: syscall.EACCES, "/dev/null": syscall.EACCES} {
				if _, _, err := started(t, way, Command{Path: path, Args: []string{path}, Dir: "/"}); err != want {
					t.Errorf("%s: %v, want %v", path, err, want)
				}
			}
			if _, _, err := started(t, way, Command{Path: "/bin/true", Args: []string{"true"}, Dir: "/no/folder"}); err != syscall.ENOENT {
				t.Errorf("no folder: %v", err)
			}
			if _, _, err := started(t, way, Command{Path: "/bin/true", Args: []string{"a\x00b"}, Dir: "/"}); err != syscall.EINVAL {
				t.Errorf("zero byte: %v", err)
			}
		})
	}
}

func TestUsersOfBothWays(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	for name, way := range map[string]func(*Command) (Child, error){"forkExec": forkExec, "Spawn": Linux{}.Spawn} {
		user := &Credential{UID: 12, GID: 34, Groups: []uint32{56, 78}}
		text, _, err := started(t, way, Command{Path: "/usr/bin/id", Args: []string{"id"}, Dir: "/", User: user})
		for _, want := range []string{"uid=12", "gid=34", "56", "78"} {
			if err != nil || !strings.Contains(text, want) {
				t.Errorf("%s: %q %v", name, text, err)
			}
		}
	}
}

func TestReadingAndWritingDoNotWait(t *testing.T) {
	ours, theirs, err := Pipe(true)
	if err != nil {
		t.Fatal(err)
	}
	if _, errno := Read(ours, make([]byte, 1)); errno != Again {
		t.Errorf("an empty pipe: %v", errno)
	}
	Close(theirs)
	if n, errno := Read(ours, make([]byte, 1)); n != 0 || errno != 0 {
		t.Errorf("the end: %d %v", n, errno)
	}
	Close(ours)
}

func TestATerminalHasASize(t *testing.T) {
	ours, theirs, err := Terminal()
	if err != nil {
		t.Skip("no terminals here: " + err.Error())
	}
	defer Close(ours)
	defer Close(theirs)
	if err := Resize(ours, 24, 80); err != nil {
		t.Error(err)
	}
}

func TestFilesAndFolders(t *testing.T) {
	k := Linux{}
	folder := t.TempDir()
	if err := k.Mkdir(folder+"/sub", 0o755); err != nil || k.Mkdir(folder+"/sub", 0o755) != nil {
		t.Error(err)
	}
	if err := k.Symlink("sub", folder+"/link"); err != nil || k.Symlink("sub", folder+"/link") != nil {
		t.Error(err)
	}
	if names, err := k.ReadDir(folder); err != nil || strings.Join(names, " ") != "link sub" {
		t.Errorf("%q %v", names, err)
	}
	if _, err := k.ReadFile(folder + "/none"); err != syscall.ENOENT {
		t.Error(err)
	}
	big := strings.Repeat("0123456789", 1000)
	if err := os.WriteFile(folder+"/f", []byte(big), 0o755); err != nil {
		t.Fatal(err)
	}
	if text, err := k.ReadFile(folder + "/f"); err != nil || string(text) != big {
		t.Errorf("%d bytes %v", len(text), err)
	}
	if err := k.WriteFile(folder+"/f", "x"); err != nil {
		t.Error(err)
	}
	if k.Executable(folder+"/f") != nil || k.Executable(folder+"/sub") != syscall.EACCES || k.Executable("/no") != syscall.ENOENT {
		t.Error("executable")
	}
}

func TestDeviceEventsAreWaitedFor(t *testing.T) {
	k := Linux{}
	fd, err := k.DeviceEvents()
	if err != nil {
		t.Skip("no device events here: " + err.Error())
	}
	defer Close(fd)
	if k.WaitEvent(fd, "block", 1) {
		t.Log("a device came just now")
	}
}

func TestASignalOfAChildEndsAWaitAndHarmsNothing(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := (Linux{}).QuietRuntime(); err != nil {
		t.Fatal(err)
	}
	epoll, err := Epoll()
	if err != nil {
		t.Fatal(err)
	}
	defer Close(epoll)
	thread, over := syscall.Gettid(), make(chan struct{})
	defer close(over)
	go func() {
		for {
			select {
			case <-over:
				return
			case <-time.After(time.Millisecond):
				_, _, _ = syscall.RawSyscall(syscall.SYS_TGKILL, uintptr(os.Getpid()), uintptr(thread), uintptr(syscall.SIGCHLD))
			}
		}
	}()
	for i := 0; i < 100; i++ {
		if n, err := Wait(epoll, make([]syscall.EpollEvent, 1), 10*60*1000); n != 0 || err != nil {
			t.Fatal(n, err)
		}
	}
}

func TestASealedCopyCanBeRunAndNotChanged(t *testing.T) {
	fd, err := Linux{}.Seal("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	defer Close(fd)
	path := "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(fd)
	said, code, err := started(t, Linux{}.Spawn, Command{Path: path, Args: []string{"sh", "-c", "echo run"}, Dir: "/"})
	if err != nil || code != 0 || said != "run\n" {
		t.Errorf("%q %d %v", said, code, err)
	}
	if file, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
		_, err = file.Write([]byte("x"))
		if err == nil {
			t.Error("it was written to")
		}
	}
	if _, err := (Linux{}).Seal("/nowhere"); err != syscall.ENOENT {
		t.Error(err)
	}
}
