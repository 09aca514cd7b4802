package loop

import "sync"

// Once is work beside the loop that is to be done before other work can be, and by the first that needs it. What has failed is tried
// again by the next.
type Once struct {
	lock sync.Mutex
	done bool
}

// Do does the work unless it has been done; it waits while another does it.
func (o *Once) Do(work func() error) error {
	o.lock.Lock()
	defer o.lock.Unlock()
	if o.done {
		return nil
	}
	err := work()
	o.done = err == nil
	return err
}
