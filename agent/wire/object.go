package wire

// Member is one member of a JSON object: its name, and its value as it was written.
type Member struct{ Name, Text string }

// Object is a JSON object of which only some members are known here; all the others are kept as they were written.
type Object []Member

// ParseObject reads an object; "" has no members.
func ParseObject(text string) (o Object, err error) {
	r := newJSONReader(orNothing(text))
	r.object(func(name string) { o = append(o, Member{name, r.raw()}) })
	return o, r.end()
}

// Text returns the value of a member as it was written, "" for null and for one that is not there. Of several with one name the last
// counts.
func (o Object) Text(name string) string {
	for i := len(o) - 1; i >= 0; i-- {
		if o[i].Name == name {
			return o[i].Text
		}
	}
	return ""
}

// Set gives a member a value, written as JSON; "" takes it out.
func (o *Object) Set(name, text string) {
	kept := (*o)[:0:0]
	for _, m := range *o {
		if m.Name != name {
			kept = append(kept, m)
		}
	}
	if text != "" {
		kept = append(kept, Member{name, text})
	}
	*o = kept
}

// Object returns the members of a member; of one that is not there none.
func (o Object) Object(name string) (Object, error) {
	inner, err := ParseObject(o.Text(name))
	return inner, within(name, err)
}

// String returns the value of a member that is a string.
func (o Object) String(name string) (text string, err error) {
	err = o.read(name, func(r *jsonReader) { text = r.str() })
	return text, err
}

// Bool returns the value of a member that is true or false.
func (o Object) Bool(name string) (is bool, err error) {
	err = o.read(name, func(r *jsonReader) { is = r.boolean() })
	return is, err
}

// Uint32 returns the value of a member that is a number.
func (o Object) Uint32(name string) (n uint32, err error) {
	err = o.read(name, func(r *jsonReader) { n = r.uint32() })
	return n, err
}

// List returns the elements of a member that is an array, each as it was written.
func (o Object) List(name string) (elements []string, err error) {
	err = o.read(name, func(r *jsonReader) { r.list('[', ']', func() { elements = append(elements, r.raw()) }) })
	return elements, err
}

// Objects returns the elements of a member that is an array of objects.
func (o Object) Objects(name string) ([]Object, error) {
	elements, err := o.List(name)
	if err != nil {
		return nil, err
	}
	objects := make([]Object, len(elements))
	for i, text := range elements {
		if objects[i], err = ParseObject(text); err != nil {
			return nil, within(name, err)
		}
	}
	return objects, nil
}

// Strings returns the elements of a member that is an array of strings.
func (o Object) Strings(name string) (texts []string, err error) {
	err = o.read(name, func(r *jsonReader) { texts = r.strings() })
	return texts, err
}

// Numbers returns the elements of a member that is an array of numbers.
func (o Object) Numbers(name string) (numbers []uint32, err error) {
	err = o.read(name, func(r *jsonReader) { r.list('[', ']', func() { numbers = append(numbers, r.uint32()) }) })
	return numbers, err
}

func (o Object) read(name string, value func(*jsonReader)) error {
	text := o.Text(name)
	if text == "" {
		text = "null"
	}
	r := newJSONReader(text)
	value(r)
	return within(name, r.end())
}

// within says in which member a mistake is.
func within(name string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Code: CodeOf(err), Text: name, Cause: err}
}

// Append appends the object as JSON.
func (o Object) Append(b []byte) []byte {
	b = append(b, '{')
	for i, m := range o {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(AppendString(b, m.Name), ':')
		if m.Text == "" {
			b = append(b, "null"...)
		}
		b = append(b, m.Text...)
	}
	return append(b, '}')
}

// Encode returns the object as JSON.
func (o Object) Encode() string { return string(o.Append(nil)) }

// EncodeList returns objects as a JSON array.
func EncodeList(objects []Object) string {
	b := []byte{'['}
	for i, o := range objects {
		if i > 0 {
			b = append(b, ',')
		}
		b = o.Append(b)
	}
	return string(append(b, ']'))
}

// Quoted returns a text as a JSON string.
func Quoted(text string) string { return string(AppendString(nil, text)) }
