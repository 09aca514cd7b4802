package loop

import (
	"runtime"
	"sync"

	"utilityvm/agent/internal/sys"
)

// maxBeside is how much work is done beside the loop at a time; more waits its turn.
const maxBeside = 16

// beside is work that the kernel may keep waiting: mounts, disks that appear. It is done by goroutines of its own, and
// the loop hears of its end.
type beside struct {
	bell    int // readable when something is done
	running int
	waiting []func()

	lock sync.Mutex
	done []func()
}

// Beside runs work in a goroutine and then, in the loop, what is to be done with it; with what could not even begin, at once.
// work must not touch what the loop owns. No order is kept among those that run at the same time.
func (l *Loop) Beside(work func() error, then func(error)) {
	if err := l.openBeside(); err != nil {
		then(err)
		return
	}
	b := l.beside
	run := func() {
		err := work()
		b.lock.Lock()
		b.done = append(b.done, func() { then(err) })
		b.lock.Unlock()
		sys.Ring(b.bell)
	}
	if b.running == maxBeside {
		b.waiting = append(b.waiting, run)
		return
	}
	b.running++
	go run()
}

// openBeside makes what Beside needs, the first time.
func (l *Loop) openBeside() error {
	if l.beside != nil {
		return nil
	}
	bell, err := sys.Eventfd()
	if err != nil {
		return err
	}
	if err := l.Watch(bell, sys.In, SourceFunc(func(uint32) { l.besideDone() })); err != nil {
		sys.Close(bell)
		return err
	}
	l.beside = &beside{bell: bell}
	if runtime.GOMAXPROCS(0) < 2 {
		runtime.GOMAXPROCS(2) // the loop keeps its own while it waits
	}
	return nil
}

// besideDone hands out what has been done, and begins what waited for it.
func (l *Loop) besideDone() {
	b := l.beside
	sys.Answer(b.bell)
	b.lock.Lock()
	done := b.done
	b.done = nil
	b.lock.Unlock()
	for _, then := range done {
		b.running--
		if len(b.waiting) > 0 {
			next := b.waiting[0]
			b.waiting = b.waiting[1:]
			b.running++
			go next()
		}
		then()
	}
}
