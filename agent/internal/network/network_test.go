package network

import (
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"utilityvm/agent/internal/sys"
	"utilityvm/agent/internal/sys/systest"
	"utilityvm/agent/wire"
)

func mac(n int) string { return "02:00:00:00:00:0" + strconv.Itoa(n) }

// machine has interfaces 2, 3 and 4, with the hardware addresses 2, 3 and 4.
func machine() *systest.Kernel {
	k := &systest.Kernel{Files: map[string]string{"/etc/utilityvm/modules": "net: /net.ko\n"}, Fail: map[string]error{}}
	k.Links = map[int][]sys.Link{0: {{Index: 1, Name: "lo", Address: "00:00:00:00:00:00"}}}
	for n := 2; n < 5; n++ {
		k.Links[0] = append(k.Links[0], sys.Link{Index: n, Name: "eth" + strconv.Itoa(n-2), Address: mac(n), MTU: 1500})
	}
	return k
}

func card(namespace string, n int) *wire.Adapter {
	return &wire.Adapter{
		Namespace: namespace, ID: "nic" + strconv.Itoa(n), MAC: mac(n), ByPolicy: true,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10." + strconv.Itoa(n) + ".0.9/24")},
		Routes: []wire.AdapterRoute{{
			Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10." + strconv.Itoa(n) + ".0.1"),
		}},
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// done returns what was done to networks since the last look.
func done(k *systest.Kernel) []string {
	var list []string
	for _, call := range k.Calls {
		if strings.HasPrefix(call, "net ") {
			list = append(list, strings.TrimPrefix(call, "net "))
		}
	}
	k.Calls = nil
	return list
}

func same(t *testing.T, k *systest.Kernel, want ...string) {
	t.Helper()
	if got := done(k); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestAnAdapterOfTheVMItselfIsSetUpWhereItIs(t *testing.T) {
	k, table := machine(), Table{}
	a := card(Own, 2)
	a.Servers, a.Suffixes, a.Overhead = []string{"10.2.0.3"}, []string{"example.org", "x"}, 50
	must(t, table.Add(k, a))
	same(t, k, "0: mtu 2 1450", "0: up 2", "0: address 2 10.2.0.9/24", "0: route 2 0.0.0.0/0 via 10.2.0.1 metric 1 table 0")
	if text := k.Files["/etc/resolv.conf"]; text != "search example.org x\nnameserver 10.2.0.3\n" {
		t.Errorf("%q", text)
	}
	must(t, table.Remove(k, a))
	same(t, k, "0: down 2")
	if text := k.Files["/etc/resolv.conf"]; text != "" {
		t.Errorf("%q", text)
	}
	must(t, table.Add(k, a))
}

func TestAdaptersWaitForTheProcessOfTheirNamespaceAndAreMovedOnce(t *testing.T) {
	k, table := machine(), Table{}
	must(t, table.Add(k, card("ns", 2)))
	same(t, k)
	must(t, table.Assign(k, "NS", 77))
	same(t, k, "0: down 2", "0: move 2 to 77 as eth0", "77: up 102", "77: address 102 10.2.0.9/24",
		"77: route 102 0.0.0.0/0 via 10.2.0.1 metric 1 table 0")
	// The kernel gives the next adapter the name that has become free; only that one is moved.
	k.Links[0] = append(k.Links[0], sys.Link{Index: 9, Name: "eth0", Address: mac(9)})
	must(t, table.Add(k, card("ns", 9)))
	same(t, k, "0: down 9", "0: move 9 to 77 as eth1", "77: up 109", "77: address 109 10.9.0.9/24",
		"77: rule from 10.9.0.9/32 table 102 priority 5", "77: route 109 0.0.0.0/0 via 10.9.0.1 metric 500 table 102")
	must(t, table.Remove(k, card("ns", 9)))
	same(t, k, "77: no rule from 10.9.0.9/32 table 102", "77: down 109")
	must(t, table.Remove(k, card("ns", 9)))
	same(t, k)
}

func TestAGatewayOutsideOfTheNetworkIsMadeReachable(t *testing.T) {
	k, table := machine(), Table{}
	a := card(Own, 2)
	a.Addresses = []netip.Prefix{netip.MustParsePrefix("10.2.0.9/32"), netip.MustParsePrefix("fd00::9/64")}
	six := netip.MustParsePrefix("::/0")
	a.Routes = append(a.Routes,
		wire.AdapterRoute{Destination: six, Gateway: netip.MustParseAddr("fe80::1"), Metric: 9},
		wire.AdapterRoute{Destination: netip.MustParsePrefix("10.7.0.0/16")})
	must(t, table.Add(k, a))
	same(t, k, "0: up 2", "0: address 2 10.2.0.9/32", "0: address 2 fd00::9/64",
		"0: route 2 10.2.0.1/32 via link metric 0 table 0", "0: route 2 0.0.0.0/0 via 10.2.0.1 metric 1 table 0",
		"0: route 2 ::/0 via fe80::1 metric 9 table 0", "0: route 2 10.7.0.0/16 via link metric 0 table 0")
}

func TestANamespaceBelongsToOneProcessUntilItIsReleased(t *testing.T) {
	k, table := machine(), Table{}
	must(t, table.Add(k, card("ns", 2)))
	must(t, table.Assign(k, "ns", 77))
	if err := table.Assign(k, "ns", 78); err == nil {
		t.Error("two processes have it")
	}
	table.Release(k, "ns", 78)
	if err := table.Assign(k, "ns", 78); err == nil {
		t.Error("who never had it has released it")
	}
	table.Release(k, "ns", 77)
	k.Links[0], k.Links[77] = append(k.Links[0], sys.Link{Index: 102, Name: "eth0", Address: mac(2)}), nil
	done(k)
	must(t, table.Assign(k, "ns", 78))
	if got := done(k)[1]; got != "0: move 102 to 78 as eth0" {
		t.Error(got)
	}
	table.Release(k, "ns", 78)
	if !table.Known("NS") {
		t.Error("the namespace is gone before its adapters")
	}
	must(t, table.Remove(k, card("ns", 2)))
	if len(table.namespaces) != 0 || table.Known("ns") {
		t.Error("the namespace stays")
	}
}

func TestANamespaceMayHaveItsProcessBeforeItsAdapters(t *testing.T) {
	k, table := machine(), Table{}
	must(t, table.Assign(k, "ns", 77))
	must(t, table.Add(k, card("ns", 2)))
	if got := done(k); len(got) == 0 || got[1] != "0: move 2 to 77 as eth0" {
		t.Error(got)
	}
	table.Release(k, "ns", 77)
	table.Release(k, "never heard of", 77)
}

func TestAnAdapterIsWaitedFor(t *testing.T) {
	k, table := machine(), Table{}
	a := card(Own, 8)
	if err := table.Add(k, a); wire.CodeOf(err) != wire.Timeout || !strings.Contains(err.Error(), mac(8)) {
		t.Error(err)
	}
	if len(table.namespaces) != 0 {
		t.Error("what did not come is remembered")
	}
}

func TestWhatCannotBeFoundOrIsThereAlreadyIsRefused(t *testing.T) {
	k, table := machine(), Table{}
	must(t, table.Add(k, card("ns", 2)))
	if err := table.Add(k, card("ns", 2)); err == nil || err.Error() != "adapter with id: 'nic2' already present in namespace" {
		t.Error(err)
	}
	none, nowhere := card("ns", 3), card("ns", 3)
	none.MAC, nowhere.Addresses = "", nil
	if err := table.Add(k, none); wire.CodeOf(err) != wire.InvalidArg {
		t.Error(err)
	}
	if err := table.Add(k, nowhere); wire.CodeOf(err) != wire.NotImpl {
		t.Error(err)
	}
	k.Links[0] = append(k.Links[0], sys.Link{Index: 7, Name: "twin", Address: mac(3)})
	if err := table.Add(k, card("ns", 3)); err == nil || !strings.Contains(err.Error(), "multiple network interfaces") {
		t.Error(err)
	}
}

func TestAFailureOnTheWayLeavesNothingBehind(t *testing.T) {
	steps := []string{"0: down 2", "0: move 2 to 77 as eth0", "77: up 102", "77: address 102 10.2.0.9/24",
		"77: rule from 10.2.0.9/32 table 101 priority 5", "77: route 102 0.0.0.0/0 via 10.2.0.1 metric 500 table 101"}
	for _, step := range steps {
		k, table := machine(), Table{}
		a := card("ns", 2)
		a.LowMetric = true
		must(t, table.Assign(k, "ns", 77))
		k.Fail["net "+step] = syscall.EIO
		if err := table.Add(k, a); err == nil || !strings.Contains(err.Error(), "nic2") {
			t.Errorf("%s: %v", step, err)
		}
		if left := table.namespaces["ns"].adapters; len(left) != 0 {
			t.Errorf("%s: %v stays", step, left[0])
		}
		k.Fail = nil
		k.Links[0], k.Links[77] = machine().Links[0], nil
		must(t, table.Add(k, a))
	}
}

func TestARemovalThatFailsMayBeAskedForAgain(t *testing.T) {
	k, table := machine(), Table{}
	a := card(Own, 2)
	a.LowMetric = true
	must(t, table.Add(k, a))
	k.Fail["net 0: no rule from 10.2.0.9/32 table 101"] = syscall.EIO
	if err := table.Remove(k, a); err == nil {
		t.Error("it was not told")
	}
	k.Fail = nil
	must(t, table.Remove(k, a))
	if len(table.namespaces) != 0 {
		t.Error("it stays")
	}
}

func TestWhoseProcessIsGoneNeedsNoUndoing(t *testing.T) {
	k, table := machine(), Table{}
	must(t, table.Add(k, card("ns", 2)))
	must(t, table.Assign(k, "ns", 77))
	k.Fail["net 77"] = syscall.ENOENT
	must(t, table.Remove(k, card("ns", 2)))
}

func TestTheResolverOfANamespaceHasEachServerOnce(t *testing.T) {
	k, table := machine(), Table{}
	for n := 2; n < 4; n++ {
		a := card("ns", n)
		a.Servers, a.Suffixes = []string{"1.1.1.1", "9.9.9." + strconv.Itoa(n)}, []string{"a"}
		must(t, table.Add(k, a))
	}
	if text := table.Resolver("NS"); text != "search a\nnameserver 1.1.1.1\nnameserver 9.9.9.2\nnameserver 9.9.9.3\n" {
		t.Errorf("%q", text)
	}
	if table.Resolver("other") != "" {
		t.Error("a stranger has servers")
	}
}
