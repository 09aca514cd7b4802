package wire

import (
	"fmt"
	"strings"
	"testing"
)

func TestAnAdapterOfEitherShapeMeansTheSame(t *testing.T) {
	older := `{"NamespaceID":"NS","ID":"n1","MacAddress":"02-00-00-00-00-AB","IPAddress":"10.1.0.2","PrefixLength":24,` +
		`"GatewayAddress":"10.1.0.1","DNSSuffix":"a.b,c","DNSServerList":"1.1.1.1,8.8.8.8","EncapOverhead":50,"Newest":[1]}`
	newer := `{"NamespaceID":"ns","ID":"n1","MacAddress":"02:00:00:00:00:ab","IPConfigs":[{"IPAddress":"10.1.0.2","PrefixLength":24}],` +
		`"Routes":[{"NextHop":"10.1.0.1"}],"PolicyBasedRouting":true,"DNSSuffix":"a.b c","DNSServerList":"1.1.1.1 8.8.8.8","EncapOverhead":50}`
	a, err := ParseAdapter(older)
	b, wrong := ParseAdapter(newer)
	if err != nil || wrong != nil {
		t.Fatal(err, wrong)
	}
	if got := fmt.Sprint(a); got != fmt.Sprint(b) || a.MAC != "02:00:00:00:00:ab" || a.Namespace != "ns" {
		t.Errorf("%s is not %v", got, b)
	}
	if got := fmt.Sprint(a.Addresses, a.Routes, a.Suffixes); got != "[10.1.0.2/24] [{0.0.0.0/0 10.1.0.1 0}] [a.b c]" {
		t.Error(got)
	}
}

func TestWaysWithoutAHopAreToTheLinkAndOnesToEverythingThroughNothingAreNone(t *testing.T) {
	a, err := ParseAdapter(`{"NamespaceID":"n","ID":"i","IPConfigs":[{"IPAddress":"fd00::2","PrefixLength":64}],"Routes":[` +
		`{"NextHop":"::"},{"NextHop":"0.0.0.0"},{},{"NextHop":"fe80::1","Metric":7},{"DestinationPrefix":"10.0.0.0/8"},` +
		`{"NextHop":"0.0.0.0","DestinationPrefix":"10.2.0.0/16"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(a.Routes); got != "[{::/0 fe80::1 7} {10.0.0.0/8 invalid IP 0} {10.2.0.0/16 invalid IP 0}]" {
		t.Error(got)
	}
}

func TestAdaptersThatMakeNoSenseAreRefusedByWhatIsWrong(t *testing.T) {
	many := strings.Repeat(`{"IPAddress":"10.0.0.1","PrefixLength":8},`, maxInList) + `{"IPAddress":"10.0.0.1","PrefixLength":8}`
	for settings, code := range map[string]HResult{
		`{`:          InvalidJSON,
		`{"ID":"i"}`: InvalidArg,
		`{"NamespaceID":"n","ID":"i","VPCIAssigned":true}`:                                           NotImpl,
		`{"NamespaceID":"n","ID":"i","IPAddress":"<nil>"}`:                                           InvalidArg,
		`{"NamespaceID":"n","ID":"i","IPAddress":"10.0.0.1"}`:                                        InvalidArg,
		`{"NamespaceID":"n","ID":"i","IPAddress":"10.0.0.1","PrefixLength":33}`:                      InvalidArg,
		`{"NamespaceID":"n","ID":"i","IPAddress":"fe80::1%eth0","PrefixLength":64}`:                  InvalidArg,
		`{"NamespaceID":"n","ID":"i","GatewayAddress":"x"}`:                                          InvalidArg,
		`{"NamespaceID":"n","ID":"i","Routes":[{"DestinationPrefix":"10.0.0.0"}]}`:                   InvalidArg,
		`{"NamespaceID":"n","ID":"i","Routes":[{"NextHop":"::1","DestinationPrefix":"10.0.0.0/8"}]}`: InvalidArg,
		`{"NamespaceID":"n","ID":"i","DNSServerList":"1.1.1.1,evil\nnameserver"}`:                    InvalidArg,
		`{"NamespaceID":"n","ID":"i","DNSSuffix":"a\noptions"}`:                                      InvalidArg,
		`{"NamespaceID":"n","ID":"i","IPConfigs":[` + many + `]}`:                                    InvalidArg,
	} {
		if _, err := ParseAdapter(settings); CodeOf(err) != code || err == nil {
			t.Errorf("%s: %v", settings, err)
		}
	}
}
