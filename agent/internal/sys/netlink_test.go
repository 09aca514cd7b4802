package sys

import (
	"encoding/hex"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// inNewNetwork runs test in a thread with a network namespace of its own, which only root can make.
func inNewNetwork(t *testing.T, test func(run func(words ...string) string)) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make a network namespace")
	}
	done, refused := make(chan struct{}), error(nil)
	go func() {
		defer close(done)
		runtime.LockOSThread() // and the thread ends with this function
		if refused = syscall.Unshare(cloneNewNet); refused != nil {
			return
		}
		test(func(words ...string) string {
			out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
			if err != nil {
				t.Errorf("%v: %v: %s", words, err, out)
			}
			return strings.Join(strings.Fields(string(out)), " ")
		})
	}()
	<-done
	if refused != nil {
		t.Skip("no network namespace: ", refused)
	}
}

func TestTheKernelTakesWhatIsSaidOfNetworks(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("no ip(8)")
	}
	inNewNetwork(t, func(run func(words ...string) string) {
		run("ip", "link", "add", "one", "address", "02:00:00:00:00:01", "type", "veth", "peer", "name", "two", "address", "02:00:00:00:00:02")
		net, err := Linux{}.OpenNet(0)
		if err != nil {
			t.Error(err)
			return
		}
		defer net.Close()
		index := linkNamed(t, net, "one").Index
		four, six := netip.MustParsePrefix("10.1.0.2/24"), netip.MustParsePrefix("fd00::2/64")
		rule := Rule{From: netip.MustParsePrefix("10.1.0.2/32"), Table: 301, Priority: 5}
		for again := 0; again < 2; again++ { // what is there already may be said again
			for _, err := range []error{
				net.SetUp(linkNamed(t, net, "two").Index, true), net.SetMTU(index, 1400), net.SetUp(index, true),
				net.AddAddress(index, four), net.AddAddress(index, six),
				net.AddRoute(Route{Link: index, Destination: netip.MustParsePrefix("10.9.0.1/32")}),
				net.AddRoute(Route{Link: index, Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.9.0.1"), Metric: 1}),
				net.AddRoute(Route{Link: index, Destination: netip.MustParsePrefix("::/0"), Gateway: netip.MustParseAddr("fd00::1"), Metric: 7, Table: 301}),
				net.AddRule(rule),
			} {
				if err != nil {
					t.Error(err)
				}
			}
		}
		for what, want := range map[string]string{
			"ip -4 route show table main": "default via 10.9.0.1 dev one proto static metric 1 10.1.0.0/24 dev one proto kernel scope link src 10.1.0.2 10.9.0.1 dev one proto static scope link",
			"ip -6 route show table 301":  "default via fd00::1 dev one proto static metric 7 pref medium",
			"ip rule show priority 5":     "5: from 10.1.0.2 lookup 301",
		} {
			if got := run(strings.Fields(what)...); got != want {
				t.Errorf("%s: %s", what, got)
			}
		}
		if err := net.RemoveRule(rule); err != nil {
			t.Error(err)
		}
		if err := net.RemoveRule(rule); err != nil {
			t.Error("a rule that is gone:", err)
		}
		if link := linkNamed(t, net, "one"); link.MTU != 1400 || link.Address != "02:00:00:00:00:01" {
			t.Error(link)
		}
		if err := net.SetMTU(index+1000, 1400); err != syscall.ENODEV {
			t.Error(err)
		}
	})
}

func TestAnInterfaceIsMovedToTheNamespaceOfAProcess(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("no ip(8)")
	}
	inNewNetwork(t, func(run func(words ...string) string) {
		run("ip", "link", "add", "one", "type", "veth", "peer", "name", "two")
		other := exec.Command("cat")
		other.SysProcAttr = &syscall.SysProcAttr{Cloneflags: cloneNewNet}
		input, _ := other.StdinPipe()
		if err := other.Start(); err != nil {
			t.Error(err)
			return
		}
		here, err := Linux{}.OpenNet(0)
		if err != nil {
			t.Error(err)
			return
		}
		if err := here.Move(linkNamed(t, here, "one").Index, other.Process.Pid, "eth7"); err != nil {
			t.Error(err)
		}
		there, err := Linux{}.OpenNet(other.Process.Pid)
		if err != nil {
			t.Error(err)
			return
		}
		linkNamed(t, there, "eth7")
		input.Close()
		_ = other.Wait()
		if _, err := (Linux{}).OpenNet(other.Process.Pid); err != syscall.ENOENT {
			t.Error("the network of a process that has ended:", err)
		}
	})
}

func linkNamed(t *testing.T, net Net, name string) Link {
	links, err := net.Links()
	if err != nil {
		t.Error(err)
	}
	for _, link := range links {
		if link.Name == name {
			return link
		}
	}
	t.Errorf("no %s in %v", name, links)
	return Link{}
}

func TestAnswersThatAreCutOffAreRefused(t *testing.T) {
	for text, want := range map[string]error{
		"14000000020000000000000000000000ea":       syscall.EBADMSG, // longer than what is there
		"0800000002000000000000000000000000000000": syscall.EBADMSG, // shorter than its header
		"1000000002000000000000000000000000000000": syscall.EBADMSG, // an error without a number
		"1400000002000000000000000000000000000000": nil,
		"14000000020000000000000000000000efffffff": syscall.EEXIST,
		"1400000003000000000000000000000000000000": nil,
	} {
		b, _ := hex.DecodeString(text)
		if done, err := answers(b, nil); !done || err != want {
			t.Errorf("%s: %v %v", text, done, err)
		}
	}
	for n := 0; n < 40; n++ {
		eachAttribute(make([]byte, n), func(uint16, []byte) { t.Error("an attribute of nothing") })
	}
}

func TestAnAttributeIsPaddedAndItsLengthIsNot(t *testing.T) {
	m := newNetlink(1, 0, nil)
	m.attribute(3, []byte("ab\x00"))
	if got := hex.EncodeToString(m.bytes[syscall.NLMSG_HDRLEN:]); got != "0700030061620000" {
		t.Error(got)
	}
	eachAttribute(m.bytes[syscall.NLMSG_HDRLEN:], func(kind uint16, value []byte) {
		if kind != 3 || string(trimZero(value)) != "ab" {
			t.Error(kind, value)
		}
	})
}
