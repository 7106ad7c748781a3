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
	pool   mem.Pool         // lends to the Pools of connections and sessions, which have accounts
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
	e.tasks.New = func() any { return new(task) }
	e.work.Init(e.opt.Workers, rankQueue, &e.freeze)
	e.wait.init(e.memory, rankQueue)
	e.freeze.init(mu)
}
