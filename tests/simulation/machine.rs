//! The machine: CPUs, and what happens to tasks. It knows nothing of stalld.

use crate::kernel::QUICK;
use crate::setup::{Random, Setup, Trouble};
use crate::tasks::{Hidden, Judged, Life, Scheduled, State};
use rig::costs::Costs;
use stalld::sys::sched::{Attr, RESET_ON_FORK};
use stalld::task::{Cpu, Nanos, Policy, Tid};

/// The fewest tids of a machine, so that they are used again soon.
const MIN_TIDS: usize = 100;

/// The machine has been up for some time.
pub const BEGINNING: Nanos = Nanos::from_secs(100);

const DEFAULT_SLACK: u64 = 50_000;

pub struct Core {
    pub online: bool,
    pub hogged: bool,
    /// When stalld last began a boost here, or tried to.
    pub tried_at: Nanos,
    /// When it last reported a boost here, or a refusal. It began that earlier.
    pub reported_at: Nanos,
    /// The pulses of the last second, if there is a bound on what they may take: when each began,
    /// and what it took from the hog.
    pub pulses: Vec<(Nanos, Nanos)>,
    /// When a pulse last began here.
    pub pulsed_at: Nanos,
}

pub struct World {
    pub setup: Setup,
    pub now: Nanos,
    pub random: Random,
    pub cores: Vec<Core>,
    pub lives: Vec<Life>,
    /// The kernel resets the timer slack of a task that becomes real-time, as newer ones do.
    pub takes_slack: bool,
    pub turn: u64,
    pub waits: u64,
    /// Tasks of which stalld has a restore record, by tid and tgid.
    pub noted: Vec<(Tid, Tid)>,
    /// The time that each call takes.
    pub costs: Costs,
    /// The time from a boost to the moment at which the task gets its CPU.
    pub reach: Nanos,
    /// How much later than planned a sleep ends.
    pub wakes_late: Nanos,
    ids: u64,
    pace: Nanos,
    /// The start of the last task with each tid.
    last_start: Vec<u64>,
}

impl World {
    pub fn new(setup: Setup, threshold: Nanos) -> World {
        let mut random = Random::new(setup.seed);
        let core = |_| Core {
            online: true,
            hogged: false,
            tried_at: Nanos::ZERO,
            reported_at: Nanos::ZERO,
            pulses: Vec::new(),
            pulsed_at: Nanos::ZERO,
        };
        let takes_slack = random.one_in(2);
        let mut world = World {
            setup,
            now: BEGINNING,
            random,
            cores: (0..setup.cpus).map(core).collect(),
            lives: Vec::new(),
            takes_slack,
            turn: 0,
            waits: 0,
            noted: Vec::new(),
            costs: QUICK,
            reach: Nanos::ZERO,
            wakes_late: Nanos::ZERO,
            ids: 0,
            pace: Nanos(threshold.0 / 20),
            last_start: vec![0; MIN_TIDS.max(3 * setup.tasks)],
        };
        for _ in 0..setup.tasks {
            let born = world.born(None);
            world.lives.push(born);
        }
        if setup.is_large() {
            world.crowd();
        }
        world
    }

    /// Starts hogs on half of the CPUs, and queues half of the tasks.
    fn crowd(&mut self) {
        for index in 0..self.cores.len().min(self.lives.len()) {
            if self.random.one_in(2) {
                self.lives[index].cpu = Cpu(index as u32);
                self.hog(index);
            }
        }
        for index in self.cores.len()..self.lives.len() {
            if self.random.one_in(2) {
                self.wake(index);
            }
        }
    }

    pub fn ticks(&self) -> u64 {
        self.now.0 / 10_000_000
    }

    pub fn find(&self, tid: Tid) -> Option<usize> {
        self.lives.iter().position(|life| life.tid == tid)
    }

    /// Pauses for a random time, and then lets one thing happen to one task.
    pub fn step(&mut self, until: Nanos) {
        let pace = if self.random.one_in(3) { self.pace.0 / 50 } else { 2 * self.pace.0 };
        let then = self.now + Nanos(self.random.below(pace + 1) + 1);
        if then >= until {
            self.now = until;
            return;
        }
        self.now = then;
        self.happen();
    }

    pub fn happen(&mut self) {
        let index = self.random.below(self.lives.len() as u64) as usize;
        match self.random.below(200) {
            0 if self.setup.has(Trouble::Hotplug) => self.plug(),
            1..=4 => self.hog(index),
            _ => self.live(index),
        }
    }

    /// Advances time to `until`, while stalld sleeps through a boost or a pulse. Most of the
    /// boosted tasks run meanwhile.
    pub fn lend(&mut self, until: Nanos) {
        let most = until - self.now;
        self.now = self.now.max(until);
        for index in 0..self.lives.len() {
            let life = self.lives[index];
            let may_run = life.state == State::Queued && !life.stuck && life.reached_at <= self.now;
            if life.is_foreign() && may_run && !self.random.one_in(10) {
                self.run_briefly(index);
                self.lives[index].cpu_time =
                    self.lives[index].cpu_time + Nanos(self.random.below(most.0 + 1));
            }
        }
    }

    pub fn exit(&mut self, index: usize, reuse: bool) {
        let life = self.lives[index];
        if life.tid == life.tgid && self.lives.iter().any(|it| it.tgid == life.tid && it.tid != life.tid) {
            return;
        }
        self.bury(index);
        let born = self.born(reuse.then_some(life.tid));
        self.lives[index] = born;
    }

    /// Replaces a task at the last moment by another one that has its tid and is scheduled alike.
    pub fn replace(&mut self, tid: Tid) {
        let Some(index) =
            self.find(tid).filter(|&index| self.setup.has(Trouble::Exit) && !self.lives[index].hog)
        else {
            return;
        };
        let Life { id, mut own, .. } = self.lives[index];
        self.exit(index, true);
        if self.lives[index].id != id {
            // The new task has not set a timer slack.
            own.slack = self.slack_of(&Scheduled { attr: own.attr, slack: DEFAULT_SLACK }, own.attr.policy);
            (self.lives[index].own, self.lives[index].now) = (own, own);
        }
    }

    pub fn change_policy(&mut self, index: usize) {
        let life = self.lives[index];
        // A task that has never run can't have set its policy itself.
        if (life.judged.inherits.is_none() || life.runs > 0) && !life.hog {
            let own = self.scheduled();
            let it = &mut self.lives[index];
            (it.now, it.own, it.judged.inherits) = (own, own, None);
            it.judged.kept = false;
        }
    }

    /// Returns the timer slack that the kernel gives a task that gets this policy.
    pub fn slack_of(&self, before: &Scheduled, policy: Policy) -> u64 {
        let is_realtime = |policy: Policy| policy.is_realtime() || policy == Policy::DEADLINE;
        match (is_realtime(before.attr.policy), is_realtime(policy)) {
            _ if !self.takes_slack => before.slack,
            (_, true) => 0,
            (true, false) => DEFAULT_SLACK,
            (false, false) => before.slack,
        }
    }

    fn live(&mut self, index: usize) {
        let (life, roll) = (self.lives[index], self.random.below(100));
        let setup = self.setup;
        let trouble = |it: Trouble| setup.has(it);
        match (life.state, roll) {
            (_, 0) if trouble(Trouble::Policy) => self.change_policy(index),
            (_, 1) if trouble(Trouble::Exit) && !life.hog => {
                let reuse = self.random.one_in(2);
                self.exit(index, reuse);
            }
            (State::Running, 2) if trouble(Trouble::Exec) => self.exec(index),
            (State::Running, 3..=6) if trouble(Trouble::Fork) => self.fork(index),
            (State::Queued, 0..30) if life.hidden != Hidden::No => {
                let it = &mut self.lives[index];
                it.hidden = Hidden::No;
                it.stamp = Some(self.now);
            }
            (State::Queued, _) if life.hidden != Hidden::No => {}
            (State::Queued, 4..=9) if trouble(Trouble::Migrate) => {
                let cpu = self.online();
                let it = &mut self.lives[index];
                (it.cpu, it.hidden, it.moved_in) = (cpu, Hidden::Migrating, self.turn);
            }
            (State::Queued, 10..=11) if trouble(Trouble::Throttle) && life.prio() >= 100 => {
                self.lives[index].hidden = Hidden::Throttled;
            }
            (State::Queued, 0..60) if life.is_foreign() && !life.stuck => {
                self.run_briefly(index);
                if roll < 20 && trouble(Trouble::Fork) {
                    self.fork(index);
                } else if roll < 23 && trouble(Trouble::Exec) {
                    self.exec(index);
                }
            }
            (State::Queued, _) if life.is_foreign() => {}
            (State::Queued, _) => {
                let hogged = self.cores[life.cpu.0 as usize].hogged;
                if roll >= if hogged { 98 } else { 60 } {
                    self.run(index);
                }
            }
            (State::Running, _) if roll < 50 && !life.hog => self.lives[index].state = State::Asleep,
            (State::Asleep, _) if roll < 60 => self.wake(index),
            _ => {}
        }
    }

    fn wake(&mut self, index: usize) {
        let cpu = self.lives[index].cpu;
        let cpu = if self.cores[cpu.0 as usize].online { cpu } else { self.online() };
        let it = &mut self.lives[index];
        (it.cpu, it.moved_in) = (cpu, self.turn);
        let idle = !self.lives.iter().any(|it| it.cpu == cpu && it.state == State::Running);
        if idle { self.run(index) } else { self.queue(index) }
    }

    fn queue(&mut self, index: usize) {
        self.waits += 1;
        // A task that is preempted on its way to sleep has no stamp.
        let stamp = (!self.random.one_in(20)).then_some(self.now);
        let it = &mut self.lives[index];
        (it.state, it.hidden, it.truly, it.stamp) = (State::Queued, Hidden::No, self.now, stamp);
    }

    /// Gives a task its CPU, and queues the task that had it. Beside a hog the task only runs
    /// briefly.
    fn run(&mut self, index: usize) {
        let cpu = self.lives[index].cpu;
        let before = self.lives.iter().position(|it| it.cpu == cpu && it.state == State::Running);
        if let Some(before) = before {
            if self.lives[before].hog {
                return self.run_briefly(index);
            }
            self.queue(before);
        }
        self.ran(index);
        let it = &mut self.lives[index];
        (it.state, it.hidden) = (State::Running, Hidden::No);
    }

    fn run_briefly(&mut self, index: usize) {
        self.ran(index);
        if self.random.one_in(3) {
            self.lives[index].state = State::Asleep;
        } else {
            self.queue(index);
        }
    }

    fn ran(&mut self, index: usize) {
        let it = &mut self.lives[index];
        it.runs += 1;
        it.ran_at = self.now;
        it.judged.known = None;
        it.judged.named = false;
    }

    /// Makes a task a hog. If its CPU has a hog already, ends the hogs of that CPU instead.
    fn hog(&mut self, index: usize) {
        let cpu = self.lives[index].cpu;
        let core = &mut self.cores[cpu.0 as usize];
        if core.hogged {
            core.hogged = false;
            self.lives.iter_mut().filter(|it| it.cpu == cpu).for_each(|it| it.hog = false);
        } else if core.online && !self.lives[index].is_foreign() && !self.lives[index].judged.boosted {
            self.run(index);
            if self.lives[index].state != State::Running {
                return;
            }
            let attr = Attr { policy: Policy::FIFO, priority: 50, ..Attr::default() };
            let it = &mut self.lives[index];
            let slack = if self.takes_slack { 0 } else { it.own.slack };
            it.own = Scheduled { attr, slack };
            (it.now, it.hog, it.judged.inherits) = (it.own, true, None);
            self.cores[cpu.0 as usize].hogged = true;
        }
    }

    fn plug(&mut self) {
        let index = self.random.below(self.cores.len() as u64) as usize;
        let others = self.cores.iter().filter(|core| core.online).count() > 1;
        let core = &mut self.cores[index];
        if !core.online {
            core.online = true;
        } else if others {
            (core.online, core.hogged) = (false, false);
            for of in 0..self.lives.len() {
                if self.lives[of].cpu.0 as usize == index {
                    let cpu = self.online();
                    self.lives[of].hog = false;
                    if self.lives[of].state == State::Running {
                        self.queue(of);
                    }
                    let it = &mut self.lives[of];
                    (it.cpu, it.moved_in) = (cpu, self.turn);
                    it.stamp = it.stamp.map(|_| self.now);
                }
            }
        }
    }

    fn online(&mut self) -> Cpu {
        let from = self.random.below(self.cores.len() as u64) as usize;
        let order = (from..self.cores.len()).chain(0..from);
        Cpu(order.into_iter().find(|&cpu| self.cores[cpu].online).unwrap() as u32)
    }

    /// Forks a child, a process or a thread. It replaces a sleeping task, so that the number of
    /// tasks stays the same.
    fn fork(&mut self, index: usize) {
        let parent = self.lives[index];
        let place = self.random.below(self.lives.len() as u64) as usize;
        let gone = self.lives[place];
        let is_used = |tid: Tid| self.lives.iter().any(|it| it.tgid == tid && it.id != gone.id);
        if place == index || gone.state != State::Asleep || gone.judged.boosted || is_used(gone.tid) {
            return;
        }
        self.bury(place);
        let mut child = self.born(None);
        let resets = parent.now.attr.flags & RESET_ON_FORK != 0;
        let attr = if resets { Attr::default() } else { parent.now.attr };
        let slack = if self.takes_slack && parent.own.slack == 0 && resets {
            DEFAULT_SLACK
        } else {
            parent.own.slack
        };
        child.own = Scheduled { attr, slack };
        (child.now, child.cpu) = (child.own, parent.cpu);
        (child.tgid, child.parent) =
            if self.random.one_in(4) { (parent.tgid, 0) } else { (child.tid, parent.id) };
        let missed = parent.is_foreign() && parent.own.attr.flags & RESET_ON_FORK == 0;
        let due = parent.judged.inherits.unwrap_or(parent.own.attr);
        child.judged.inherits = missed.then_some(due).filter(|due| *due != attr);
        self.lives[place] = child;
        self.queue(place);
    }

    /// Ends the other threads of a process. The thread that is left takes the tid of the process.
    fn exec(&mut self, index: usize) {
        let life = self.lives[index];
        let leader = self.lives.iter().position(|it| it.tid == life.tgid && it.id != life.id);
        // Skip this if another thread is boosted, because it would be unclear which boost is whose.
        let is_boosted = |it: &Life| it.is_foreign() || it.judged.boosted;
        let noted = self.noted.iter().any(|&(tid, tgid)| tgid == life.tgid && tid != life.tid);
        if noted || self.lives.iter().any(|it| it.tgid == life.tgid && it.id != life.id && is_boosted(it)) {
            return;
        }
        let Life { start, runs: leader_runs, judged: Judged { refused_until, .. }, .. } =
            leader.map_or(life, |leader| self.lives[leader]);
        let others: Vec<usize> =
            (0..self.lives.len()).filter(|&it| it != index && self.lives[it].tgid == life.tgid).collect();
        for &other in &others {
            self.bury(other);
            let born = self.born(None);
            self.lives[other] = born;
        }
        let it = &mut self.lives[index];
        (it.tid, it.start) = (life.tgid, start);
        it.runs = it.runs.max(leader_runs) + 1;
        (it.judged.known, it.judged.named, it.judged.born_in) = (None, false, self.turn);
        // stalld takes the task for the leader.
        it.judged.refused_until = it.judged.refused_until.max(refused_until);
    }

    /// Frees the tid of a task that has ended, and leaves its children without a parent.
    fn bury(&mut self, index: usize) {
        let gone = self.lives[index].id;
        (self.lives[index].tid, self.lives[index].tgid) = (Tid(0), Tid(0));
        self.lives.iter_mut().filter(|it| it.parent == gone).for_each(|it| it.parent = 0);
    }

    fn born(&mut self, tid: Option<Tid>) -> Life {
        let tid = tid.unwrap_or_else(|| {
            loop {
                let tid = Tid(1 + self.random.below(self.last_start.len() as u64 - 1) as i32);
                if !self.lives.iter().any(|it| it.tid == tid || it.tgid == tid) {
                    break tid;
                }
            }
        });
        self.ids += 1;
        let start = self.ticks().max(self.last_start[tid.0 as usize] + 1);
        self.last_start[tid.0 as usize] = start;
        let own = self.scheduled();
        let mut tgid = tid;
        if self.random.one_in(3) && !self.lives.is_empty() {
            let index = self.random.below(self.lives.len() as u64) as usize;
            tgid = Some(self.lives[index].tgid).filter(|&tgid| tgid.0 > 0).unwrap_or(tid);
        }
        Life {
            id: self.ids,
            tid,
            tgid,
            start,
            parent: 0,
            cpu: self.online(),
            moved_in: 0,
            state: State::Asleep,
            hidden: Hidden::No,
            truly: Nanos::ZERO,
            stamp: None,
            runs: 0,
            ran_at: Nanos::ZERO,
            reached_at: Nanos::ZERO,
            cpu_time: Nanos::ZERO,
            now: own,
            own,
            hog: false,
            stuck: false,
            judged: Judged { born_in: self.turn, ..Judged::default() },
        }
    }

    /// Returns a random scheduling, as a task may choose for itself.
    fn scheduled(&mut self) -> Scheduled {
        let policy = self.random.of(&[
            Policy::OTHER,
            Policy::OTHER,
            Policy::BATCH,
            Policy::IDLE,
            Policy::FIFO,
            Policy::RR,
            Policy::DEADLINE,
        ]);
        let flags = if self.random.one_in(5) || policy == Policy::DEADLINE { RESET_ON_FORK } else { 0 };
        let mut attr = Attr { policy, flags, ..Attr::default() };
        if policy.is_realtime() {
            // At 98, with RESET_ON_FORK, a task would look like one in a pulse.
            attr.priority = 1 + self.random.below(49) as u32;
        } else if policy == Policy::DEADLINE {
            (attr.runtime, attr.deadline, attr.period) =
                (Nanos::from_millis(5), Nanos::from_millis(50), Nanos::from_millis(100));
        } else {
            attr.nice = self.random.below(40) as i32 - 20;
        }
        let slack = match policy.is_realtime() || policy == Policy::DEADLINE {
            true if self.takes_slack => 0,
            _ if self.random.one_in(3) => 1 + self.random.below(1_000_000),
            _ => DEFAULT_SLACK,
        };
        Scheduled { attr, slack }
    }
}
