package container

import (
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

const (
	pods     = `{"process":{"args":["x"]},"root":{"path":"rootfs"},"windows":{"network":{"networkNamespace":"POD-1"}},`
	networks = `"linux":{"namespaces":[{"type":"pid"},{"type":"network"}]}`
)

// plug gives the machine an interface, and an adapter on it to the namespace pod-1.
func (r *rig) plug(n int) *wire.Adapter {
	r.t.Helper()
	mac := "02:00:00:00:00:0" + strconv.Itoa(n)
	if r.Links == nil {
		r.Links = map[int][]sys.Link{}
	}
	r.Links[0] = append(r.Links[0], sys.Link{Index: n, Name: "eth0", Address: mac, MTU: 1500})
	a := &wire.Adapter{Namespace: "pod-1", ID: "nic" + strconv.Itoa(n), MAC: mac, Servers: []string{"10.1.0.3"},
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0." + strconv.Itoa(n) + "/24")}}
	if err := r.networks.Add(r.machine, a); err != nil {
		r.t.Fatal(err)
	}
	return a
}

func (r *rig) moved(pid int) bool {
	return strings.Contains(strings.Join(r.Calls, "\n"), "net 0: move 2 to "+strconv.Itoa(pid)+" as eth0")
}

func TestAContainerHasTheAdaptersOfItsNetworkNamespaceUntilItEnds(t *testing.T) {
	r := newRig(t)
	r.plug(2)
	c, err := r.create("c", pods+networks+"}")
	if err != nil {
		t.Fatal(err)
	}
	pid := c.first.PID()
	if !r.moved(pid) {
		t.Errorf("no adapter came: %q", r.Calls)
	}
	if text := r.Files[folder("c")+"/resolv.conf"]; text != "nameserver 10.1.0.3\n" {
		t.Errorf("resolv.conf: %q", text)
	}
	if _, err := r.create("other", pods+networks+"}"); err == nil || !strings.Contains(err.Error(), "belongs to the process "+strconv.Itoa(pid)) {
		t.Error("two containers have it:", err)
	}
	if _, err := r.Find("other"); wire.CodeOf(err) != wire.SystemNotFound {
		t.Error("what was refused is remembered:", err)
	}
	if len(r.notices) != 0 {
		t.Errorf("the end of what nobody was told of is told: %+v", r.notices)
	}
	if _, err := r.start(c); err != nil {
		t.Fatal(err)
	}
	if err := r.Signal(c, uint32(pid), 9, false); err != nil {
		t.Fatal(err)
	}
	r.wait("c", pid)
	if err := r.delete(c); err != nil {
		t.Fatal(err)
	}
	// Its process is gone: the kernel has taken the interface back.
	r.Links[0], r.Links[pid], r.Calls = []sys.Link{{Index: 2, Name: "eth0", Address: "02:00:00:00:00:02"}}, nil, nil
	if c, err = r.create("c", pods+networks+"}"); err != nil || !r.moved(c.first.PID()) {
		t.Error(err, r.Calls)
	}
}

func TestAWorkloadIsInTheNamespaceOfItsSandboxAndTakesNoneOfItsOwn(t *testing.T) {
	r := newRig(t)
	r.plug(2)
	if _, err := r.create("box", pods+networks+`,"annotations":{"io.kubernetes.cri.container-type":"sandbox"}}`); err != nil {
		t.Fatal(err)
	}
	inside := `,"annotations":{"io.kubernetes.cri.container-type":"container","io.kubernetes.cri.sandbox-id":"box"}}`
	if _, err := r.create("one", pods+`"linux":{}`+inside); err != nil {
		t.Error(err)
	}
	if _, err := r.create("two", strings.Replace(pods, "POD-1", "pod-2", 1)+`"linux":{}`+inside); wire.CodeOf(err) != wire.InvalidArg ||
		!strings.Contains(err.Error(), "network namespace pod-2: a workload is in that of its sandbox, 'pod-1'") {
		t.Error(err)
	}
}

func TestANetworkNamespaceThatACannotHaveIsRefusedByItsName(t *testing.T) {
	r := newRig(t)
	if _, err := r.create("c", pods+networks+"}"); wire.CodeOf(err) != wire.NotFound || err.Error() != "namespace 'pod-1' not found" {
		t.Error(err)
	}
	for spec, why := range map[string]string{
		pods + `"linux":{"namespaces":[{"type":"pid"}]}}`:                                          "needs a namespace of the type network of its own",
		pods + `"linux":{"namespaces":[{"type":"network","path":"/proc/1/ns/net"}]}}`:              "needs a namespace of the type network of its own",
		strings.Replace(pods, "POD-1", wire.NullGUID, 1) + networks + "}":                          "is the utility VM's own",
		strings.Replace(pods, `"POD-1"`, "7", 1) + networks + "}":                                  "networkNamespace",
		strings.Replace(pods, `{"networkNamespace":"POD-1"}`, `"x"`, 1) + networks + "}":           "network",
		strings.Replace(pods, `{"network":{"networkNamespace":"POD-1"}}`, "1", 1) + networks + "}": "windows",
	} {
		if _, err := r.create("c", spec); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", spec, err)
		}
	}
}

func TestAContainerWhoseAdaptersCannotBeMovedLeavesNothing(t *testing.T) {
	r := newRig(t)
	r.plug(2)
	r.Fail = map[string]error{"net 0: down 2": syscall.EIO}
	if _, err := r.create("c", pods+networks+"}"); err == nil || !strings.Contains(err.Error(), "network adapter nic2: switching it off") {
		t.Fatal(err)
	}
	if len(r.byID) != 0 || len(r.notices) != 0 {
		t.Errorf("%v %v is left", r.byID, r.notices)
	}
	r.Fail = nil
	if _, err := r.create("c", pods+networks+"}"); err != nil {
		t.Error(err)
	}
}
