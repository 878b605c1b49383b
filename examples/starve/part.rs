//! The threads of the rig: the hog and its victims, which differ only in how they are scheduled.

use crate::losses::Losses;
use crate::options::Part;
use crate::quota::Quota;
use stalld::error::{Context, Error, Result};
use stalld::sys::{clock, sched, wait};
use stalld::task::{Cpu, Nanos, Policy, Tid};
use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::SeqCst};
use std::thread::{self, JoinHandle};

/// The state that all threads share.
pub struct Stage {
    cpu: Cpu,
    /// When all threads end. It is 0 before that is known, so that a thread that is released too
    /// early ends at once.
    deadline: AtomicU64,
    /// When the hog first ran; 0 before that.
    hog_at: AtomicU64,
}

impl Stage {
    pub fn new(cpu: Cpu) -> Stage {
        Stage { cpu, deadline: AtomicU64::new(0), hog_at: AtomicU64::new(0) }
    }

    pub fn end_at(&self, moment: Nanos) {
        self.deadline.store(moment.0, SeqCst);
    }

    pub fn hog_at(&self) -> Nanos {
        Nanos(self.hog_at.load(SeqCst))
    }
}

/// The report of a thread about itself.
#[derive(Default)]
struct Record {
    tid: AtomicI32,
    released: AtomicBool,
    progress: AtomicU64,
    last_ran: AtomicU64,
    first_ran_after: AtomicU64,
    longest_gap: AtomicU64,
    most_lost: AtomicU64,
}

/// A thread and its part.
pub struct Actor {
    pub part: Part,
    record: Arc<Record>,
    thread: thread::Thread,
    handle: Option<JoinHandle<Result<()>>>,
}

impl Actor {
    /// Starts a victim: the thread sets itself up, and sleeps until it is released.
    pub fn start(part: Part, stage: Arc<Stage>, children: usize, quota: Option<Arc<Quota>>) -> Result<Actor> {
        Actor::spawn(part, move |record| {
            // Children inherit the scheduling of their parent, so they are started before it
            // changes.
            let children = Children::start(children)?;
            if let Some(quota) = &quota {
                quota.admit(sched::gettid())?;
            }
            set_up(&part, &stage)?;
            record.wait_for_release();
            if children.0.is_empty() {
                record.compute(&stage, || Ok(()))
            } else {
                record.compute(&stage, check_children)
            }
        })
    }

    pub fn start_hog(part: Part, stage: Arc<Stage>) -> Result<Actor> {
        Actor::spawn(part, move |record| {
            set_up(&part, &stage)?;
            record.wait_for_release();
            stage.hog_at.store(clock::monotonic().0, SeqCst);
            record.compute(&stage, || Ok(()))
        })
    }

    fn spawn(part: Part, body: impl FnOnce(&Record) -> Result<()> + Send + 'static) -> Result<Actor> {
        let record = Arc::new(Record::default());
        let own = record.clone();
        let handle = thread::Builder::new().spawn(move || body(&own)).context("start a thread")?;
        Ok(Actor { part, record, thread: handle.thread().clone(), handle: Some(handle) })
    }

    /// Releases the thread by a futex of its own. Threads behind a common lock would sleep there
    /// instead of starving.
    pub fn release(&self) {
        self.record.released.store(true, SeqCst);
        self.thread.unpark();
    }

    /// Returns true if the thread has been set up, and now sleeps.
    pub fn is_parked(&self) -> bool {
        let tid = self.tid();
        tid != Tid(0) && is_asleep(&format!("/proc/self/task/{tid}/stat"))
    }

    pub fn is_finished(&self) -> bool {
        self.handle.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Returns the error that ended the thread, if one did.
    pub fn check(&mut self) -> Result<()> {
        match self.handle.take_if(|handle| handle.is_finished()) {
            Some(handle) => handle.join().map_err(|_| Error::new("a thread has panicked"))?,
            None => Ok(()),
        }
    }

    pub fn tid(&self) -> Tid {
        Tid(self.record.tid.load(SeqCst))
    }

    pub fn progress(&self) -> u64 {
        self.record.progress.load(SeqCst)
    }

    pub fn last_ran(&self) -> Nanos {
        Nanos(self.record.last_ran.load(SeqCst))
    }

    /// Returns when the thread first ran after the hog came; 0 if it has not done so.
    pub fn first_ran_after(&self) -> Nanos {
        Nanos(self.record.first_ran_after.load(SeqCst))
    }

    /// Returns the longest time between two readings of the clock by the thread.
    pub fn longest_gap(&self) -> Nanos {
        Nanos(self.record.longest_gap.load(SeqCst))
    }

    /// Returns the most time that the thread has lost in any second.
    pub fn most_lost(&self) -> Nanos {
        Nanos(self.record.most_lost.load(SeqCst))
    }
}

impl Record {
    fn wait_for_release(&self) {
        self.tid.store(sched::gettid().0, SeqCst);
        while !self.released.load(SeqCst) {
            thread::park();
        }
    }

    /// Works until the deadline, and reads the clock after each piece of work.
    fn compute(&self, stage: &Stage, mut piece: impl FnMut() -> Result<()>) -> Result<()> {
        let mut before = clock::monotonic();
        let mut longest = Nanos::ZERO;
        let mut losses = Losses::default();
        loop {
            let now = clock::monotonic();
            if now - before > longest {
                longest = now - before;
                self.longest_gap.store(longest.0, SeqCst);
            }
            if losses.note(before, now) {
                self.most_lost.store(losses.most_in_a_second().0, SeqCst);
            }
            before = now;
            // If the hog preempts a victim right here, `hog_at` is set when the victim goes on. But
            // `now` is older, so this does not count as a run after the hog.
            let hog_at = stage.hog_at();
            if hog_at > Nanos::ZERO && now > hog_at && self.first_ran_after.load(SeqCst) == 0 {
                self.first_ran_after.store(now.0, SeqCst);
            }
            self.last_ran.store(now.0, SeqCst);
            self.progress.fetch_add(1, SeqCst);
            if now.0 >= stage.deadline.load(SeqCst) {
                return Ok(());
            }
            piece()?;
        }
    }
}

fn set_up(part: &Part, stage: &Stage) -> Result<()> {
    let own = Tid(0);
    sched::set_name(&part.name).context(format!("name a thread '{}'", part.name))?;
    // The policy comes first, because other tasks may keep an ordinary thread off the CPU to be
    // hogged.
    let Part { priority, .. } = *part;
    let policy = part.kind.policy();
    if policy != Policy::OTHER {
        let name = policy.name().unwrap_or_default();
        sched::set_scheduler(own, policy, priority, false)
            .context(format!("make a thread {name} {priority}"))
            .map_err(|e| e.with_cure("it needs CAP_SYS_NICE and, in a cgroup v1, cpu.rt_runtime_us"))?;
    }
    sched::set_affinity(own, &[stage.cpu].into_iter().collect())
        .context(format!("pin a thread to CPU {}", stage.cpu))
}

/// Returns whether the task of this file of /proc sleeps.
fn is_asleep(stat: &str) -> bool {
    let stat = fs::read(stat).unwrap_or_default();
    // The name is in brackets and may contain brackets, so the state follows the last one.
    let state = stat.iter().rposition(|&b| b == b')').and_then(|bracket| stat.get(bracket + 2));
    state == Some(&b'S')
}

fn check_children() -> Result<()> {
    wait::a_child_has_ended().map(|_| ()).context("wait for children")
}

/// The limit on the time until all children of a victim sleep.
const START_TIMEOUT: Nanos = Nanos::from_secs(10);

/// Child processes that sleep. A task that goes through them in waitpid(2) already has the state
/// "sleeping". If it is preempted there, it stays queued, but does not appear to be runnable.
struct Children(Vec<Child>);

impl Children {
    fn start(count: usize) -> Result<Children> {
        let mut children = Children(Vec::new());
        for _ in 0..count {
            let null = || Stdio::null();
            let child = Command::new("sleep").arg("200").stdin(null()).stdout(null()).stderr(null()).spawn();
            children.0.push(child.context("start 'sleep'")?);
        }
        children.fall_asleep()?;
        Ok(children)
    }

    /// Waits until all of them sleep. A child that still starts would wait behind the hog itself.
    fn fall_asleep(&self) -> Result<()> {
        let until = clock::monotonic() + START_TIMEOUT;
        while !self.0.iter().all(|child| is_asleep(&format!("/proc/{}/stat", child.id()))) {
            if clock::monotonic() > until {
                return Err(Error::new("waited in vain for the children of a victim to sleep"));
            }
            clock::nap(Nanos::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}
