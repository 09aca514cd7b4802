package sys

// Appear looks, and again at each piece of news of that sort that subscribe has opened, DeviceEvents or NodeEvents, until look has found
// something or it is the end, a time of Now. It reports whether something was found; the error is subscribe's.
func Appear(k Kernel, subscribe func() (int, error), sort string, end int64, look func() bool) (bool, error) {
	events, err := subscribe()
	if err != nil {
		return false, err
	}
	defer Close(events)
	for {
		if look() {
			return true, nil
		}
		left := (end - Now()) / 1e6
		if left <= 0 || !k.WaitEvent(events, sort, int(left)) {
			return false, nil
		}
	}
}
