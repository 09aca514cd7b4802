// Package loop is the agent's one loop: descriptors, deadlines, and work that is left over from both.
//
// Everything in the agent runs on it, so nothing needs a lock. Events are edge-triggered: each tells once that a
// descriptor has become ready, and its owner remembers that until the kernel says Again.
package loop

import (
	"syscall"

	"utilityvm/agent/internal/sys"
)

// Source is told that its descriptor is ready. It may be called once more without cause.
type Source interface {
	Ready(events uint32)
}

// SourceFunc makes a Source of a function.
type SourceFunc func(events uint32)

// Ready implements Source.
func (f SourceFunc) Ready(events uint32) { f(events) }

// Forever as a time to wait has no end.
const Forever = -1

// Worker does what is left to do after events were handed out. It returns how many milliseconds the loop may wait for
// the next event before it calls again: none, some, or Forever.
type Worker interface {
	Work() (patience int)
}

// Idle is called before the loop waits, and returns whether it did something, which may have made work.
type Idle func() bool

// Timer is a deadline, made by After.
type Timer struct {
	at  int64
	run func()
}

type watched struct {
	source Source
	round  uint32 // told apart from the same number's next use
}

// Loop is the loop. Make it with New; everything but New must be called from within Run, or before it.
type Loop struct {
	epoll   int
	watched []watched // by descriptor
	timers  []*Timer  // the next one first
	worker  Worker
	idle    Idle
	beside  *beside // nil until it is needed
	stop    error
	stopped bool
}

// New returns a loop.
func New() (*Loop, error) {
	epoll, err := sys.Epoll()
	if err != nil {
		return nil, err
	}
	return &Loop{epoll: epoll}, nil
}

// Serve sets who works after events and what happens before waiting.
func (l *Loop) Serve(worker Worker, idle Idle) {
	l.worker, l.idle = worker, idle
}

// Watch reports events of fd to source until Close.
func (l *Loop) Watch(fd int, events uint32, source Source) error {
	for len(l.watched) <= fd {
		l.watched = append(l.watched, watched{})
	}
	w := &l.watched[fd]
	w.source = source
	w.round++
	return sys.Watch(l.epoll, fd, events, l.key(fd), false)
}

// Change replaces the events that fd is watched for; one that is already there is reported again.
func (l *Loop) Change(fd int, events uint32) error {
	return sys.Watch(l.epoll, fd, events, l.key(fd), true)
}

func (l *Loop) key(fd int) uint64 {
	return uint64(l.watched[fd].round)<<32 | uint64(uint32(fd))
}

// Close closes fd, which may be watched, and ends the watch.
func (l *Loop) Close(fd int) {
	if fd < len(l.watched) {
		l.watched[fd].source = nil
	}
	sys.Close(fd)
}

// After runs what after ms milliseconds, unless Cancel comes first.
func (l *Loop) After(ms uint32, what func()) *Timer {
	t := &Timer{sys.Now() + int64(ms)*1e6, what}
	i := len(l.timers)
	for i > 0 && l.timers[i-1].at > t.at {
		i--
	}
	l.timers = append(l.timers, nil)
	copy(l.timers[i+1:], l.timers[i:])
	l.timers[i] = t
	return t
}

// Cancel forgets a timer; nil, or one that has run, is fine.
func (l *Loop) Cancel(t *Timer) {
	for i, other := range l.timers {
		if other == t {
			l.timers = append(l.timers[:i], l.timers[i+1:]...)
			return
		}
	}
}

// Stop makes Run return err after the current event.
func (l *Loop) Stop(err error) {
	if !l.stopped {
		l.stopped, l.stop = true, err
	}
}

// Run hands out events until Stop, and may be called again then.
func (l *Loop) Run() error {
	var events [64]syscall.EpollEvent
	for patience := 0; !l.stopped; {
		if patience != 0 && l.idle() {
			if patience = 0; l.stopped { // events that are taken now would be told to nobody, and not again
				break
			}
		}
		n, err := sys.Wait(l.epoll, events[:], l.untilTimer(patience))
		if err != nil {
			return err
		}
		for i := 0; i < n && !l.stopped; i++ {
			l.hand(&events[i])
		}
		l.expire()
		patience = l.worker.Work()
	}
	why := l.stop
	l.stopped, l.stop = false, nil
	return why
}

func (l *Loop) hand(event *syscall.EpollEvent) {
	key := sys.EventKey(event)
	w := l.watched[uint32(key)]
	if w.source != nil && w.round == uint32(key>>32) {
		w.source.Ready(event.Events)
	}
}

// untilTimer returns the milliseconds until the next timer, rounded up, or patience if that is less.
func (l *Loop) untilTimer(patience int) int {
	if patience == 0 || len(l.timers) == 0 {
		return patience
	}
	ms := (l.timers[0].at - sys.Now() + 1e6 - 1) / 1e6
	if ms < 0 {
		ms = 0
	}
	if patience != Forever && ms > int64(patience) {
		return patience
	}
	if ms > 1<<30 {
		return 1 << 30
	}
	return int(ms)
}

func (l *Loop) expire() {
	for !l.stopped && len(l.timers) > 0 && l.timers[0].at <= sys.Now() {
		t := l.timers[0]
		l.timers = l.timers[1:]
		t.run()
	}
}
