package account_test

import (
	"reflect"
	"testing"

	"utilityvm/agent/internal/account"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/internal/sys/systest"
	"utilityvm/agent/wire"
)

var accounts = map[string]string{
	"/etc/passwd": "root:x:0:0:root:/root:/bin/sh\n# comment:x:9:9:\nbroken\nann:x:1000:100:Ann:/home/ann:/bin/sh\n7:x:70:71::/:\n",
	"/etc/group":  "root:x:0:\nusers:x:100:\nwheel:x:10:root,ann\ndisk:x:6:ann\nbad:x:no:ann\n",
}

func TestUsersAreLookedUp(t *testing.T) {
	k := &systest.Kernel{Files: accounts}
	read := account.Read(k.ReadFile)
	for who, want := range map[string]sys.Credential{
		"root":       {UID: 0, GID: 0, Groups: []uint32{10}},
		"ann":        {UID: 1000, GID: 100, Groups: []uint32{10, 6}},
		"1000":       {UID: 1000, GID: 100, Groups: []uint32{10, 6}},
		"7":          {UID: 70, GID: 71}, // a name first, then a number
		"4242":       {UID: 4242},
		"ann:wheel":  {UID: 1000, GID: 10},
		"4242:6":     {UID: 4242, GID: 6},
		"4242:54321": {UID: 4242, GID: 54321},
	} {
		if got, err := read.Find(who); err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: %+v %v, want %+v", who, got, err, want)
		}
	}
	for _, who := range []string{"bob", "bob:wheel", "ann:nogroup", ":wheel", "ann:", "-1", "4294967296"} {
		if got, err := read.Find(who); wire.CodeOf(err) != wire.InvalidArg {
			t.Errorf("%s: %+v %v", who, got, err)
		}
	}
	if got, err := read.Find(""); got != nil || err != nil {
		t.Errorf("nobody: %+v %v", got, err)
	}
}

func TestAHomeIsFoundByNumber(t *testing.T) {
	k := &systest.Kernel{Files: accounts}
	for uid, want := range map[uint32]string{0: "/root", 1000: "/home/ann", 70: "/", 4242: "/"} {
		if got := account.Read(k.ReadFile).Home(uid); got != want {
			t.Errorf("%d: %s", uid, got)
		}
	}
}

func FuzzLists(f *testing.F) {
	f.Add(accounts["/etc/passwd"], accounts["/etc/group"], "ann:wheel")
	f.Add("a:b:c:d", "a:b:c:d", "a")
	f.Add("::::", ":::,", "0")
	f.Fuzz(func(t *testing.T, passwd, group, who string) {
		read := account.Read(func(path string) ([]byte, error) {
			return []byte(map[string]string{"/etc/passwd": passwd, "/etc/group": group}[path]), nil
		})
		if home := read.Home(0); home[0] != '/' {
			t.Fatal(home)
		}
		c, err := read.Find(who)
		if err == nil && (c == nil) != (who == "") {
			t.Fatalf("%q: %+v", who, c)
		}
		if err != nil && wire.CodeOf(err) != wire.InvalidArg {
			t.Fatal(err)
		}
	})
}
