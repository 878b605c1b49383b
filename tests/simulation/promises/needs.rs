//! Checks that a boost of a task behind a hog ends soon after no task outranks it any more.

use super::{Boost, Watched};
use crate::setup::Trouble;
use crate::tasks::{Life, State};
use stalld::task::Nanos;

/// The longest time between two checks of a boost by SCHED_DEADLINE. A pulse is checked once a
/// period.
const RECHECK: Nanos = Nanos::from_millis(100);
/// The longest rest of stalld after a scan.
const MAX_REST: Nanos = Nanos::from_millis(300);

/// Whether a boost is needed.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// A task outranks the boosted one now.
    is_outranked: bool,
    /// The time in which the boost must end after that.
    over_within: Nanos,
    /// When a task last outranked it; `None` if there was no hog when the boost began.
    last: Option<Nanos>,
}

impl Need {
    /// `period` is that of pulses; `None` for a boost by SCHED_DEADLINE.
    pub fn of(life: &Life, period: Option<Nanos>, now: Nanos) -> Need {
        let is_outranked = life.judged.outranked;
        let mut need =
            Need { is_outranked, over_within: RECHECK + MAX_REST, last: is_outranked.then_some(now) };
        period.into_iter().for_each(|period| need.is_in_pulses(period));
        need
    }

    /// Pulses are checked once in a period.
    pub fn is_in_pulses(&mut self, period: Nanos) {
        self.over_within = period.max(RECHECK) + MAX_REST;
    }
}

impl Watched {
    /// Notes which boosts are needed, after something has happened.
    pub fn note_needs(&mut self) {
        let (now, lives) = (self.world.now, &self.world.lives);
        let is_outranked = |boost: &Boost| {
            let own = boost.own.priority as i32;
            lives.iter().any(|life| {
                let is_runnable = matches!(life.state, State::Running | State::Queued);
                let is_other = life.id != boost.id && !life.judged.boosted;
                let rank = 99 - life.prio();
                is_runnable && is_other && life.cpu == boost.cpu && (rank > own || rank == own && own > 0)
            })
        };
        for boost in &mut self.boosts {
            let is_outranked = is_outranked(boost);
            if boost.need.is_outranked || is_outranked {
                boost.need.last = boost.need.last.map(|_| now);
            }
            boost.need.is_outranked = is_outranked;
        }
    }

    /// Judges a turn of stalld that began at `begun`.
    pub fn judge_needs(&mut self, begun: Nanos) {
        if self.world.setup.has(Trouble::Lost) {
            return;
        }
        // The boost of the task that outranks it may have ended in this turn.
        self.note_needs();
        let needless = |boost: &&Boost| {
            boost.reported && boost.need.last.is_some_and(|last| last + boost.need.over_within < begun)
        };
        if let Some(boost) = self.boosts.iter().find(needless).copied() {
            let life = self.life(boost.id).map(|life| *life).unwrap_or(self.world.lives[0]);
            self.break_promise(&life, &format!("no task outranks it any more, and it is boosted: {boost:?}"));
        }
    }
}
