package wire

import (
	"encoding/json"
	"math/rand"
	"reflect"
	"testing"
	"unicode/utf8"
)

const randomTexts = 2000

func randomText(r *rand.Rand) string {
	alphabet := []rune("ab =\"'\\/\b\f\n\r\t\x00\x01\x1f\x7f<>&\u00e9\u20ac\u2028\u2029\ufffd\ufffe\U0001f600\U0010ffff")
	text := make([]rune, r.Intn(12))
	for i := range text {
		text[i] = alphabet[r.Intn(len(alphabet))]
	}
	return string(text)
}

func randomReference(r *rand.Rand) reference {
	p := reference{
		CommandLine: randomText(r), User: randomText(r), WorkingDirectory: randomText(r), EmulateConsole: r.Intn(2) == 0,
		CreateStdInPipe: r.Intn(2) == 0, CreateStdOutPipe: r.Intn(2) == 0, CreateStdErrPipe: r.Intn(2) == 0,
	}
	for i := r.Intn(4); i > 0; i-- {
		p.CommandArgs = append(p.CommandArgs, randomText(r))
		p.ConsoleSize = append(p.ConsoleSize, r.Uint32())
	}
	if r.Intn(3) > 0 {
		p.Environment = map[string]string{randomText(r): randomText(r), "PATH": randomText(r)}
	}
	return p
}

// agree reports whether got holds the values of want.
func agree(got *Parameters, want *reference) bool {
	environment := map[string]bool{}
	for _, entry := range got.Environment {
		environment[entry] = true
	}
	for name, value := range want.Environment {
		if !environment[name+"="+value] {
			return false
		}
	}
	return len(got.Environment) == len(want.Environment) && len(got.ConsoleSize) == len(want.ConsoleSize) &&
		(len(got.ConsoleSize) == 0 || reflect.DeepEqual(got.ConsoleSize, want.ConsoleSize)) &&
		sameList(got.CommandArgs, want.CommandArgs) &&
		got.CommandLine == want.CommandLine && got.User == want.User && got.WorkingDirectory == want.WorkingDirectory &&
		got.EmulateConsole == want.EmulateConsole && got.CreateStdInPipe == want.CreateStdInPipe &&
		got.CreateStdOutPipe == want.CreateStdOutPipe && got.CreateStdErrPipe == want.CreateStdErrPipe
}

func TestRandomParametersAreReadAsTheStandardLibraryWroteThem(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for i := 0; i < randomTexts; i++ {
		want := randomReference(r)
		text, err := json.MarshalIndent(want, "", []string{"", "\t"}[r.Intn(2)])
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseParameters(string(text))
		if err != nil || !agree(&got, &want) {
			t.Fatalf("%s read as %+v, %v", text, got, err)
		}
	}
}

func TestDamagedParametersAreJudgedAsTheStandardLibraryDoes(t *testing.T) {
	r := rand.New(rand.NewSource(2))
	const damage = `{}[]",:\0129-+.eEtrfn ` + "\n\x00\x1f"
	read, refused := 0, 0
	for i := 0; i < 10*randomTexts; i++ {
		text, err := json.Marshal(randomReference(r))
		if err != nil {
			t.Fatal(err)
		}
		at, b := r.Intn(len(text)), damage[r.Intn(len(damage))]
		if text[at]^b == 'a'^'A' {
			continue // in another case a key is the same for the standard library only
		}
		if text[at] = b; !utf8.Valid(text) {
			continue // which it repairs
		}
		var want reference
		wantErr := json.Unmarshal(text, &want)
		got, err := ParseParameters(string(text))
		if (err == nil) != (wantErr == nil) || err == nil && !agree(&got, &want) {
			t.Fatalf("%s read as %+v, %v; the standard library: %+v, %v", text, got, err, want, wantErr)
		}
		if err == nil {
			read++
		} else {
			refused++
		}
	}
	if read < 100 || refused < 100 {
		t.Errorf("%d read, %d refused: the damage is one-sided", read, refused)
	}
}

func TestRandomStringsAreWrittenAsTheStandardLibraryReadsThem(t *testing.T) {
	r := rand.New(rand.NewSource(3))
	for i := 0; i < randomTexts; i++ {
		want := randomText(r)
		written := AppendString(nil, want)
		var got string
		if err := json.Unmarshal(written, &got); err != nil || got != want {
			t.Fatalf("%q written as %s, read as %q, %v", want, written, got, err)
		}
	}
}
