// Programs of a guest that know nothing of our agent: they dial the host by AF_VSOCK at CID 2, as on Hyper-V.
// It shares no code with the agent.
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

const usage = `foreign gcs [-v4 ...]     serves GCS as the original's agent does
foreign echo PORT         sends back what comes, until its end
foreign send PORT BYTES   sends so many bytes, half-closes, prints what comes
foreign hear PORT         prints what comes until its end, and what a write says then
foreign deaf PORT         takes nothing more, says so, and waits for the end of its input
foreign hold PORT         waits for the end of its input, and closes
foreign alarm SECONDS     waits until the clock is so many seconds further, or set there
`

func main() {
	if len(os.Args) > 1 && os.Args[1] == "gcs" {
		serve(os.Args[2:])
		return
	}
	if len(os.Args) < 3 {
		fail(2, usage)
	}
	port, err := strconv.ParseUint(os.Args[2], 0, 32)
	if err != nil {
		fail(2, usage)
	}
	if os.Args[1] == "alarm" {
		if err := alarm(int64(port)); err != nil {
			fail(1, err.Error())
		}
		return
	}
	conn, err := dial(uint32(port))
	if err != nil {
		fmt.Printf("%s\n", name(err))
		os.Exit(3)
	}
	switch os.Args[1] {
	case "echo":
		_, err = io.Copy(conn, conn)
	case "send":
		err = send(conn, os.Args[3])
	case "hear":
		err = hear(conn)
	case "deaf":
		if err = syscall.Shutdown(int(conn.Fd()), syscall.SHUT_RD); err == nil {
			fmt.Println("deaf")
			_, err = io.Copy(io.Discard, os.Stdin)
		}
	case "hold":
		fmt.Println("held")
		_, err = io.Copy(io.Discard, os.Stdin)
	}
	if err != nil {
		fail(1, err.Error())
	}
	conn.Close()
}

// alarm is a timer by the clock, and not by the time that has passed.
func alarm(seconds int64) error {
	const realtime, absolute = 0, 1
	fd, _, errno := syscall.Syscall(syscall.SYS_TIMERFD_CREATE, realtime, syscall.O_CLOEXEC, 0)
	if errno != 0 {
		return errno
	}
	timer := os.NewFile(fd, "timer")
	defer timer.Close()
	when := [4]int64{2: time.Now().Unix() + seconds} // what it repeats after, and when: seconds and nanoseconds each
	_, _, errno = syscall.Syscall6(syscall.SYS_TIMERFD_SETTIME, fd, absolute, uintptr(unsafe.Pointer(&when)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	_, err := timer.Read(make([]byte, 8))
	return err
}

func fail(code int, text string) {
	fmt.Fprintln(os.Stderr, text)
	os.Exit(code)
}

func name(err error) string {
	switch err {
	case syscall.ECONNRESET:
		return "ECONNRESET"
	case syscall.ENODEV:
		return "ENODEV"
	case syscall.EPIPE:
		return "EPIPE"
	}
	return err.Error()
}

// dial opens a stream to the host, as the original's agent does: only silence is a reason to try again.
func dial(port uint32) (*os.File, error) {
	address := struct {
		family, _ uint16
		port, cid uint32
		_         [4]byte
	}{family: 40, port: port, cid: 2}
	for try := 0; ; try++ {
		fd, err := syscall.Socket(40, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		errno := syscall.EINTR
		for errno == syscall.EINTR {
			_, _, errno = syscall.Syscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&address)), unsafe.Sizeof(address))
		}
		if errno == 0 {
			return os.NewFile(uintptr(fd), "vsock"), nil
		}
		syscall.Close(fd)
		if errno != syscall.ETIMEDOUT || try == 10 {
			return nil, errno
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func send(conn *os.File, count string) error {
	left, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	block := make([]byte, 1<<16)
	for i := range block {
		block[i] = byte(i)
	}
	for left > 0 {
		n := left
		if n > len(block) {
			n = len(block)
		}
		if _, err := conn.Write(block[:n]); err != nil {
			return err
		}
		left -= n
	}
	if err := syscall.Shutdown(int(conn.Fd()), syscall.SHUT_WR); err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, conn)
	return err
}

func hear(conn *os.File) error {
	if _, err := io.Copy(os.Stdout, conn); err != nil {
		return err
	}
	_, err := syscall.Write(int(conn.Fd()), []byte("x"))
	if err == nil {
		fmt.Println(" then written")
	} else {
		fmt.Println(" then " + name(err))
	}
	return nil
}
