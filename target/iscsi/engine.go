// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"log/slog"
	"sync"

	"github.com/gotgtd/gotgtd/internal/limit"
	"github.com/gotgtd/gotgtd/internal/ranked"
	"github.com/gotgtd/gotgtd/target/account"
	"github.com/gotgtd/gotgtd/target/iscsi/schedule"
	"github.com/gotgtd/gotgtd/target/mem"
)

// engine is what all connections and sessions of a Node share.
type engine struct {
	opt    Options
	log    *slog.Logger
	sys    system
	memory *account.Process // what initiators have
	arena  *mem.Arena       // nil: buffers come from the heap
	pool   *mem.Pool        // lends to the Pools of connections and sessions, which have accounts
	work   schedule.Scheduler[*task]
	wait   memoryQueue
	tasks  sync.Pool // of *task
	freeze freezer
}

// The order in which mutexes are taken.
const (
	rankSession ranked.Rank = iota + 1
	rankNode
	rankQueue // of tasks that wait for a worker, or for memory
	rankOutput
)

// init makes an engine ready for use. mu is the Node's mutex.
func (e *engine) init(o Options, mu *ranked.Mutex) {
	e.opt = o.withDefaults()
	limits := &e.opt.Limits
	e.log = limit.Logger(e.opt.Log) // all of its lines initiators can cause
	e.sys = realSystem
	e.memory = account.New(limits.Memory, limits.accounts())
	e.makeArena()
	e.tasks.New = func() any { return new(task) }
	e.work.Init(e.opt.Workers, rankQueue, &e.freeze)
	e.wait.init(e.memory, rankQueue)
	e.freeze.init(mu)
}

// makeArena makes the arena, if there is to be one and the system has room for it.
func (e *engine) makeArena() {
	if e.opt.Arena {
		var err error
		e.arena, err = mem.NewArena(mem.ArenaOptions{Size: e.memory.Limit(), Used: e.memory.Used, Resident: e.opt.Resident})
		if err != nil {
			e.log.Warn("no arena for buffers: they come from the heap", "error", err)
		}
	}
	e.pool = e.arena.Pool()
}
