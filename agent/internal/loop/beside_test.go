package loop_test

import (
	"sync/atomic"
	"testing"

	"utilityvm/agent/internal/loop"
)

type noWork struct{}

func (noWork) Work() int { return loop.Forever }

func TestWorkBesideTheLoopIsBoundedAndAllOfItIsHeardOf(t *testing.T) {
	l, err := loop.New()
	if err != nil {
		t.Fatal(err)
	}
	l.Serve(noWork{}, func() bool { return false })
	const all, atOnce = 100, 16
	var running, most int32
	done := 0
	gate := make(chan struct{})
	for i := 0; i < all; i++ {
		l.Beside(func() error {
			if n := atomic.AddInt32(&running, 1); n > atomic.LoadInt32(&most) {
				atomic.StoreInt32(&most, n)
			}
			<-gate
			atomic.AddInt32(&running, -1)
			return nil
		}, func(err error) {
			if err != nil {
				t.Error(err)
			}
			if done++; done == all {
				l.Stop(nil)
			}
		})
	}
	l.After(1, func() { close(gate) })
	if err := l.Run(); err != nil {
		t.Fatal(err)
	}
	if done != all || most > atOnce || most == 0 {
		t.Errorf("%d done, %d at once", done, most)
	}
}
