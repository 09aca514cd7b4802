package wire

import (
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// The messages' own JSON reader and writer. encoding/json builds its decoders by reflection on first use: the first
// ExecuteProcess took it 23 ms in an emulated machine that had not run the code before, as a fresh clone has not, and
// takes this reader 5 ms.

// maxDepth is how deeply values may be nested, those that are skipped included.
const maxDepth = 64

// jsonReader reads one JSON text. The first fault sticks: every later read returns a zero value.
type jsonReader struct {
	text  string
	at    int
	depth int
	fault string
}

func newJSONReader(text string) *jsonReader {
	r := &jsonReader{text: text}
	if !utf8.ValidString(text) {
		r.fail("text is not UTF-8")
	}
	return r
}

func (r *jsonReader) fail(what string) {
	if r.fault == "" {
		r.fault = what + " at byte " + strconv.Itoa(r.at)
		r.at = len(r.text)
	}
}

// end returns the fault, if any; anything but blanks after the value is one.
func (r *jsonReader) end() error {
	if r.blank(); r.fault == "" && r.at < len(r.text) {
		r.fail("text after the value")
	}
	if r.fault != "" {
		return &Error{Code: InvalidJSON, Text: "invalid JSON: " + r.fault}
	}
	return nil
}

func (r *jsonReader) blank() {
	for r.at < len(r.text) && (r.text[r.at] == ' ' || r.text[r.at] == '\t' || r.text[r.at] == '\n' || r.text[r.at] == '\r') {
		r.at++
	}
}

// next skips blanks and consumes c if it is there.
func (r *jsonReader) next(c byte) bool {
	r.blank()
	if r.at < len(r.text) && r.text[r.at] == c {
		r.at++
		return true
	}
	return false
}

// word consumes a literal.
func (r *jsonReader) word(w string) bool {
	r.blank()
	if len(r.text)-r.at >= len(w) && r.text[r.at:r.at+len(w)] == w {
		r.at += len(w)
		return true
	}
	return false
}

// list reads values between open and shut, each with item.
func (r *jsonReader) list(open, shut byte, item func()) {
	if r.word("null") {
		return
	}
	if !r.next(open) {
		r.fail("expected " + string(rune(open)))
		return
	}
	if r.depth++; r.depth > maxDepth {
		r.fail("nested too deeply")
	}
	for first := true; r.fault == ""; first = false {
		if first && r.next(shut) {
			break
		}
		item()
		if r.next(shut) {
			break
		}
		if !r.next(',') {
			r.fail("expected , or " + string(rune(shut)))
		}
	}
	r.depth--
}

// object reads an object; member must read the value of the key that it is given.
func (r *jsonReader) object(member func(key string)) {
	r.list('{', '}', func() {
		key := r.quoted()
		if !r.next(':') {
			r.fail("expected :")
			return
		}
		member(key)
	})
}

// str reads a string, or null as "".
func (r *jsonReader) str() string {
	if r.word("null") {
		return ""
	}
	return r.quoted()
}

// strings reads an array of strings.
func (r *jsonReader) strings() (out []string) {
	r.list('[', ']', func() { out = append(out, r.str()) })
	return out
}

// boolean reads true, false or null.
func (r *jsonReader) boolean() bool {
	if r.word("true") {
		return true
	}
	if !r.word("false") && !r.word("null") {
		r.fail("expected true or false")
	}
	return false
}

// uint32 reads an integer from 0 to 2^32-1, or null as 0.
func (r *jsonReader) uint32() uint32 {
	if r.word("null") {
		return 0
	}
	n, err := strconv.ParseUint(r.number(), 10, 32)
	if err != nil {
		r.fail("expected an integer from 0 to 4294967295")
		return 0
	}
	return uint32(n)
}

// number reads a number and returns its text.
func (r *jsonReader) number() string {
	r.blank()
	start := r.at
	r.accept('-')
	if !r.accept('0') {
		r.digits()
	}
	if r.accept('.') {
		r.digits()
	}
	if r.accept('e') || r.accept('E') {
		if !r.accept('+') {
			r.accept('-')
		}
		r.digits()
	}
	if r.fault != "" {
		return ""
	}
	return r.text[start:r.at]
}

func (r *jsonReader) accept(c byte) bool {
	if r.at < len(r.text) && r.text[r.at] == c {
		r.at++
		return true
	}
	return false
}

func (r *jsonReader) digits() {
	start := r.at
	for r.at < len(r.text) && r.text[r.at] >= '0' && r.text[r.at] <= '9' {
		r.at++
	}
	if r.at == start {
		r.fail("expected a value")
	}
}

// skip reads any value.
func (r *jsonReader) skip() {
	r.blank()
	if r.at == len(r.text) {
		r.fail("text ends early")
		return
	}
	switch r.text[r.at] {
	case '{':
		r.object(func(string) { r.skip() })
	case '[':
		r.list('[', ']', r.skip)
	case '"':
		r.quoted()
	case 't', 'f', 'n':
		r.boolean()
	default:
		r.number()
	}
}

// raw reads any value and returns its text, as it is, to be read by whoever knows what it is; null as "".
func (r *jsonReader) raw() string {
	r.blank()
	if r.word("null") {
		return ""
	}
	start := r.at
	if r.skip(); r.fault != "" {
		return ""
	}
	return r.text[start:r.at]
}

// quoted reads a string.
func (r *jsonReader) quoted() string {
	if !r.next('"') {
		r.fail("expected a string")
		return ""
	}
	start := r.at
	for ; r.at < len(r.text); r.at++ {
		switch c := r.text[r.at]; {
		case c == '"':
			r.at++
			return r.text[start : r.at-1]
		case c == '\\':
			return r.escaped([]byte(r.text[start:r.at]))
		case c < ' ':
			r.fail("control character in a string")
			return ""
		}
	}
	r.fail("string without end")
	return ""
}

// escaped reads the rest of a string from its first escape on.
func (r *jsonReader) escaped(out []byte) string {
	for r.at < len(r.text) {
		c := r.text[r.at]
		r.at++
		switch {
		case c == '"':
			return string(out)
		case c < ' ':
			r.fail("control character in a string")
			return ""
		case c == '\\':
			out = r.escape(out)
		default:
			out = append(out, c)
		}
	}
	r.fail("string without end")
	return ""
}

// escape reads what follows a backslash.
func (r *jsonReader) escape(out []byte) []byte {
	if r.at == len(r.text) {
		return out
	}
	c := r.text[r.at]
	r.at++
	switch c {
	case '"', '\\', '/':
		return append(out, c)
	case 'b':
		return append(out, '\b')
	case 'f':
		return append(out, '\f')
	case 'n':
		return append(out, '\n')
	case 'r':
		return append(out, '\r')
	case 't':
		return append(out, '\t')
	case 'u':
		return utf8.AppendRune(out, r.unicode())
	}
	r.fail("unknown escape")
	return out
}

// unicode reads the digits of \u, and a second \u when the first was half a pair. A half alone is U+FFFD.
func (r *jsonReader) unicode() rune {
	first := r.hex4()
	if !utf16.IsSurrogate(first) {
		return first
	}
	back := r.at
	if r.accept('\\') && r.accept('u') {
		if both := utf16.DecodeRune(first, r.hex4()); both != utf8.RuneError {
			return both
		}
	}
	r.at = back
	return utf8.RuneError
}

func (r *jsonReader) hex4() rune {
	if len(r.text)-r.at < 4 {
		r.fail("escape ends early")
		return 0
	}
	n, err := strconv.ParseUint(r.text[r.at:r.at+4], 16, 16)
	if err != nil {
		r.fail("expected four hexadecimal digits")
		return 0
	}
	r.at += 4
	return rune(n)
}

// AppendString appends s as a JSON string; bytes that are not UTF-8 become U+FFFD.
func AppendString(b []byte, s string) []byte { return appendWithin(b, s, math.MaxInt32) }

// appendWithin appends as much of s as its JSON string, without the quotes, has room for in max bytes.
func appendWithin(b []byte, s string, max int) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	start := len(b)
	for _, c := range s {
		before := len(b)
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', byte(c))
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\t':
			b = append(b, '\\', 't')
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			b = utf8.AppendRune(b, c)
		}
		if len(b)-start > max {
			b = b[:before]
			break
		}
	}
	return append(b, '"')
}
