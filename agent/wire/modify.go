package wire

// Modify is the body of ModifySettings. Settings is the JSON text of the resource's own settings, "" when there are none.
type Modify struct {
	Request
	RequestType  string // "Add" when it was left out
	ResourceType string
	Settings     string
}

// ParseModify reads the body of ModifySettings.
func ParseModify(body []byte) (q Modify, err error) {
	q.RequestType = "Add"
	r := newJSONReader(string(body))
	request := func(key string) {
		switch key {
		case "RequestType":
			if kind := r.str(); kind != "" {
				q.RequestType = kind
			}
		case "ResourceType":
			q.ResourceType = r.str()
		case "Settings":
			q.Settings = r.raw()
		default:
			r.skip()
		}
	}
	r.object(func(key string) {
		if key == "Request" {
			r.object(request)
		} else {
			q.member(r, key)
		}
	})
	return q, r.end()
}
