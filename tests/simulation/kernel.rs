//! The machine as stalld sees it: the system calls, /proc, the clock, and a backend that scans.

use crate::promises::Watched;
use crate::setup::{Eyes, Trouble};
use crate::tasks::{Hidden, Life, State};
use rig::costs::Costs;
use stalld::boost::kernel::{Hrtick, Kernel, Settings, Standing};
use stalld::boost::restore::FIFO_PRIORITY;
use stalld::error::{Error, Result};
use stalld::observe::{Backend, Effort, Kind, Load, Snapshot, Waiter};
use stalld::proc::births::{Birth, Walk};
use stalld::sys::sched::{Attr, RESET_ON_FORK};
use stalld::task::{Comm, Cpu, Nanos, Owner, Policy, Tid};
use std::io;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard};

/// The time that each system call takes on a random machine.
pub const QUICK: Costs = {
    let call = Nanos(500);
    Costs {
        get_attr: call,
        set_attr: call,
        stat: call,
        schedstat: call,
        status: call,
        slack: call,
        queue: call,
    }
};

/// Faults of the actuator. Its code is not changed for them, but its calls are, on their way to the
/// machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// A restore reports success, but changes nothing.
    RestoreDropped,
    /// A boost reaches the main thread of the process instead of the thread.
    TidsSwapped,
    /// The priority that is saved is one too high.
    SavedWrong,
    /// The timer slack is not written back.
    SlackDropped,
    /// A restore record is cleared as soon as it is written.
    RecordLost,
    /// A refusal is not reported.
    EventLost,
}

#[derive(Clone)]
pub struct Calls {
    pub watched: Arc<Mutex<Watched>>,
    /// The guardian makes the calls, not stalld.
    pub guardian: bool,
}

/// The payload of the panic that kills stalld.
pub struct Killed;

pub fn lock(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    watched.lock().unwrap()
}

impl Calls {
    /// Enters the kernel. Time passes, stalld may be killed, and with `may_change` tasks may
    /// change.
    fn enter(&self, may_change: bool, cost: fn(&Costs) -> Nanos) -> MutexGuard<'_, Watched> {
        let mut watched = lock(&self.watched);
        watched.world.now = watched.world.now + cost(&watched.world.costs);
        if self.guardian {
            return watched;
        }
        if watched.world.setup.has(Trouble::Kill) && watched.world.random.one_in(20_000) {
            drop(watched);
            resume_unwind(Box::new(Killed));
        }
        if may_change && watched.world.setup.has(Trouble::Race) && watched.world.random.one_in(50) {
            watched.note_records();
            watched.world.happen();
            watched.note_needs();
        }
        watched
    }

    /// Changes how a task is scheduled. Before a boost another task may get the tid.
    fn set(&self, tid: Tid, attr: Attr) -> io::Result<()> {
        let mut watched = self.enter(false, |costs| costs.set_attr);
        if tid == Tid(0) {
            return Ok(());
        }
        let raises = is_boost(&attr);
        let (lies, calm) = (watched.lie, watched.calm);
        let world = &mut watched.world;
        let tid = match lies {
            Some(Lie::TidsSwapped) if raises => world.find(tid).map_or(tid, |index| world.lives[index].tgid),
            _ => tid,
        };
        if raises && world.setup.has(Trouble::Race) && world.random.one_in(200) {
            world.replace(tid);
        }
        let Some(index) = world.find(tid) else { return Err(errno(libc::ESRCH)) };
        let world = &mut watched.world;
        if raises && world.setup.has(Trouble::Refuse) && world.random.one_in(12) {
            return Err(errno(1 + world.random.below(133) as i32));
        }
        if !raises && lies == Some(Lie::RestoreDropped) && world.random.one_in(20) {
            return Ok(());
        }
        if !raises
            && world.setup.has(Trouble::Keep)
            && !calm
            && world.lives[index].judged.born_in != world.turn
            && world.random.one_in(30)
        {
            let refused = world.random.of(&[libc::EPERM, libc::EBUSY, libc::EINVAL, libc::ENOMEM]);
            watched.kept(index);
            return Err(errno(refused));
        }
        let world = &mut watched.world;
        let stuck = raises && world.setup.has(Trouble::Stuck) && world.random.one_in(10);
        let before = world.lives[index].now;
        let slack = world.slack_of(&before, attr.policy);
        let nice = before.attr.nice;
        watched.before_set(index, &attr, raises);
        let reached_at = watched.world.now + watched.world.reach;
        let life = &mut watched.world.lives[index];
        life.now.attr = Attr { nice, ..attr };
        life.now.slack = slack;
        life.stuck = stuck;
        life.reached_at = reached_at;
        watched.after_set(index, raises);
        Ok(())
    }
}

fn is_boost(attr: &Attr) -> bool {
    let fifo = (attr.policy, attr.priority) == (Policy::FIFO, FIFO_PRIORITY);
    attr.reset_on_fork() && (attr.policy == Policy::DEADLINE || fifo)
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

/// The simulated stalld changes no setting.
impl Settings for Calls {
    fn rt_runtime_us(&self) -> Result<i64> {
        unreachable!()
    }

    fn set_rt_runtime_us(&self, _: i64) -> Result<()> {
        unreachable!()
    }

    fn turn_hrtick_off(&self, _: Hrtick) -> Result<()> {
        unreachable!()
    }
}

impl Kernel for Calls {
    fn get_attr(&self, tid: Tid) -> io::Result<Attr> {
        let watched = self.enter(true, |costs| costs.get_attr);
        if tid == Tid(0) {
            return Ok(Attr { policy: Policy::FIFO, priority: 10, ..Attr::default() });
        }
        let index = watched.world.find(tid).ok_or_else(|| errno(libc::ESRCH))?;
        let mut attr = watched.world.lives[index].now.attr;
        if watched.lie == Some(Lie::SavedWrong) && attr.policy.is_realtime() && attr.priority < 50 {
            attr.priority += 1;
        }
        // The kernel does not show the nice values of real-time tasks.
        attr.nice = if attr.priority > 0 || attr.policy == Policy::DEADLINE { 0 } else { attr.nice };
        Ok(attr)
    }

    fn set_scheduler(&self, tid: Tid, policy: Policy, priority: u32, reset_on_fork: bool) -> io::Result<()> {
        let flags = if reset_on_fork { RESET_ON_FORK } else { 0 };
        self.set(tid, Attr { policy, priority, flags, ..Attr::default() })
    }

    fn set_deadline(&self, tid: Tid, runtime: Nanos, period: Nanos, flags: u64) -> io::Result<()> {
        let policy = Policy::DEADLINE;
        self.set(tid, Attr { policy, flags, runtime, deadline: period, period, ..Attr::default() })
    }

    fn set_nice(&self, tid: Tid, nice: i32) -> io::Result<()> {
        let mut watched = self.enter(false, |costs| costs.set_attr);
        let index = watched.world.find(tid).ok_or_else(|| errno(libc::ESRCH))?;
        watched.niced(index, nice);
        Ok(())
    }

    /// No child here is born with the policy of a pulse, so each task may set the rank that it has.
    fn priority_limit(&self, tid: Tid) -> Option<u64> {
        let watched = self.enter(false, |costs| costs.status);
        let index = watched.world.find(tid)?;
        Some(watched.world.lives[index].own.attr.priority.into())
    }

    fn try_start(&self, tid: Tid) -> io::Result<Option<u64>> {
        let mut watched = self.enter(false, |costs| costs.stat);
        if watched.world.setup.has(Trouble::Blind) && watched.world.random.one_in(100) {
            return Err(errno(libc::ENFILE));
        }
        Ok(watched.world.find(tid).map(|index| watched.world.lives[index].start))
    }

    /// This never fails, unlike `try_start`: only the search for children calls it, and stalld
    /// promises nothing about children that it can't see.
    fn start(&self, tid: Tid) -> Option<u64> {
        let watched = self.enter(false, |costs| costs.stat);
        let index = watched.world.find(tid)?;
        Some(watched.world.lives[index].start)
    }

    fn tgid(&self, tid: Tid) -> Option<Tid> {
        // On a host it takes no time, because the BPF backends know the process of a task.
        let mut watched = self.enter(true, |_| Nanos::ZERO);
        let index = watched.world.find(tid)?;
        watched.begins(index);
        Some(watched.world.lives[index].tgid)
    }

    fn owner(&self, tid: Tid) -> Owner {
        let watched = self.enter(false, |costs| costs.status);
        watched.world.find(tid).map_or(Owner::Unknown, |index| watched.world.lives[index].owner())
    }

    fn is_bound(&self, _: Tid) -> Option<bool> {
        Some(false)
    }

    fn comm(&self, _tid: Tid) -> Option<Comm> {
        Some(Comm::new(b"simulated"))
    }

    fn state(&self, tid: Tid) -> Option<u8> {
        let watched = self.enter(false, |costs| costs.stat);
        watched.world.find(tid).map(|_| b'S')
    }

    fn standing(&self, tid: Tid) -> Option<Standing> {
        let watched = self.enter(true, |costs| costs.stat);
        let life = &watched.world.lives[watched.world.find(tid)?];
        let is_runnable = matches!(life.state, State::Running | State::Queued);
        Some(Standing { cpu: life.cpu, prio: life.prio(), is_runnable })
    }

    fn runs(&self, tid: Tid) -> Option<u64> {
        let mut watched = self.enter(false, |costs| costs.schedstat);
        let index = watched.world.find(tid)?;
        watched.counts(index);
        Some(watched.world.lives[index].runs)
    }

    fn cpu_time(&self, tid: Tid) -> Option<Nanos> {
        let watched = self.enter(false, |costs| costs.schedstat);
        watched.world.find(tid).map(|index| watched.world.lives[index].cpu_time)
    }

    fn timer_slack(&self, tid: Tid) -> Option<u64> {
        let watched = self.enter(false, |costs| costs.slack);
        watched.world.find(tid).map(|index| watched.world.lives[index].now.slack)
    }

    fn set_timer_slack(&self, tid: Tid, slack: u64) -> Option<()> {
        let mut watched = self.enter(false, |costs| costs.slack);
        let index = watched.world.find(tid)?;
        if watched.lie != Some(Lie::SlackDropped) {
            let life = &mut watched.world.lives[index];
            life.now.slack = slack;
            if std::mem::take(&mut life.judged.lowered) {
                life.own.slack = slack;
            }
        }
        Some(())
    }

    fn threads(&self, tgid: Tid, most: usize) -> Vec<Tid> {
        let watched = self.enter(false, |costs| costs.stat);
        let mut threads: Vec<&Life> = watched.world.lives.iter().filter(|life| life.tgid == tgid).collect();
        threads.sort_unstable_by_key(|life| life.id);
        threads.iter().map(|life| life.tid).take(most).collect()
    }

    fn process_of(&self, tid: Tid) -> Option<Tid> {
        let watched = self.enter(false, |costs| costs.status);
        watched.world.find(tid).map(|index| watched.world.lives[index].tgid)
    }

    fn birth(&self, _tid: Tid) -> Option<Birth> {
        None
    }

    fn is_child(&self, _tgid: Tid, tid: Tid, child: Tid) -> Option<bool> {
        let watched = self.enter(false, |costs| costs.stat);
        let parent = watched.world.find(tid).map(|index| watched.world.lives[index].id)?;
        watched.world.find(child).map(|index| watched.world.lives[index].parent == parent)
    }

    /// Tids are assigned in random order here, so the walk goes by the ids of the machine.
    fn births(&self, walk: &mut Walk, since: u64, each: &mut dyn FnMut(Option<Birth>) -> bool) -> bool {
        loop {
            let birth = {
                let watched = self.enter(false, |costs| costs.stat);
                let lives = &watched.world.lives;
                let unmet = lives.iter().filter(|life| life.id > walk.top as u64);
                let Some(next) = unmet.min_by_key(|life| life.id) else { return true };
                walk.top = next.id as i32;
                // The process of the thread that has started it.
                let parent = lives.iter().find(|life| life.id == next.parent);
                let (tid, start) = (next.tid, next.start);
                Birth { tid, start, parent: parent.map_or(Tid(0), |parent| parent.tgid), prio: 120 }
            };
            if !each(Some(birth).filter(|birth| birth.start >= since)) {
                return false;
            }
        }
    }

    fn cpu(&self) -> Cpu {
        Cpu(0)
    }

    fn now(&self) -> Nanos {
        lock(&self.watched).world.now
    }

    fn boot_ticks(&self) -> u64 {
        lock(&self.watched).world.ticks()
    }

    fn sleep_until(&self, moment: Nanos) {
        let mut watched = self.enter(true, |_| Nanos::ZERO);
        let late = watched.world.wakes_late;
        watched.world.lend(moment + late);
    }

    fn spin_until(&self, moment: Nanos) {
        self.enter(true, |_| Nanos::ZERO).world.lend(moment);
    }
}

/// A backend over the machine.
pub struct SimulatedBackend {
    pub watched: Arc<Mutex<Watched>>,
    pub eyes: Eyes,
    pub asks: bool,
}

impl Backend for SimulatedBackend {
    fn kind(&self) -> Kind {
        Kind::TaskIter
    }

    fn snapshot(&mut self, _woke: Nanos, effort: Effort, snapshot: &mut Snapshot) -> Result<()> {
        let mut watched = lock(&self.watched);
        let world = &mut watched.world;
        snapshot.clear();
        world.now = world.now + Nanos(world.costs.queue.0 * world.cores.len() as u64);
        if world.setup.has(Trouble::Lost) && world.random.one_in(50) {
            return Err(Error::new("simulated"));
        }
        snapshot.at = world.now;
        for (_, cpu) in world.cores.iter().zip(0..).filter(|(core, _)| core.online) {
            let counts = |life: &&Life| life.cpu.0 == cpu && (life.state == State::Running || life.waits());
            let (mut runnable, mut realtime) = (0, 0);
            for life in world.lives.iter().filter(counts) {
                runnable += 1;
                realtime += u32::from(life.prio() < 100);
            }
            snapshot.load.push(Load { cpu: Cpu(cpu), runnable, realtime });
        }
        let may_wait = snapshot.load.iter().any(|load| load.runnable > 1);
        if self.asks && effort != Effort::All && (!may_wait || effort == Effort::Ask) {
            watched.scanned(snapshot);
            return Ok(());
        }
        snapshot.complete = true;
        snapshot.counts_runs = self.eyes == Eyes::Stamps;
        for life in &watched.world.lives {
            if life.waits() {
                let since = life.stamp.filter(|_| self.eyes == Eyes::Stamps);
                snapshot.waiters.push(Waiter { task: life.task(), since });
            } else if life.state == State::Running && life.hidden == Hidden::No {
                snapshot.running.push(life.task());
            }
        }
        watched.scanned(snapshot);
        Ok(())
    }
}
