//! The setup of a simulated machine. It follows from a seed, can be printed and read, and can be
//! simplified.

use stalld::boost::journal::BoostPolicy;
use stalld::boost::max_loss::MaxLoss;
use stalld::boost::plan::{Pulsed, Rules};
use stalld::detect::Limits;
use stalld::task::Nanos;
use stalld::timing::Boost;
use std::fmt;
use std::str::FromStr;

/// xorshift64: the same run for the same seed, on every machine.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % limit
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len() as u64) as usize]
    }
}

/// Events that may happen besides tasks that wake, run and sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    Hotplug,
    Migrate,
    Throttle,
    Exit,
    Fork,
    Exec,
    Policy,
    /// A scan comes late.
    Late,
    /// A scan fails.
    Lost,
    /// The kernel refuses a boost.
    Refuse,
    /// The kernel refuses a restore.
    Keep,
    /// A boosted task is not given its CPU.
    Stuck,
    /// Things happen between two system calls of stalld.
    Race,
    /// /proc can't be read.
    Blind,
    /// stalld is killed in the middle of a system call.
    Kill,
}

const TROUBLES: [Trouble; 15] = [
    Trouble::Hotplug,
    Trouble::Migrate,
    Trouble::Throttle,
    Trouble::Exit,
    Trouble::Fork,
    Trouble::Exec,
    Trouble::Policy,
    Trouble::Late,
    Trouble::Lost,
    Trouble::Refuse,
    Trouble::Keep,
    Trouble::Stuck,
    Trouble::Race,
    Trouble::Blind,
    Trouble::Kill,
];

/// How a backend sees the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eyes {
    /// It knows when each task was queued.
    Stamps,
    /// It sees only which tasks are queued.
    Presence,
}

/// The fewest tasks of a large machine.
const MANY_TASKS: u64 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    pub seed: u64,
    pub steps: u64,
    pub cpus: u32,
    pub tasks: usize,
    without: u32,
}

impl Setup {
    pub fn new(seed: u64, steps: u64) -> Setup {
        let mut random = Random::new(!seed);
        let cpus = 1 + random.below(4) as u32;
        let tasks = 4 + random.below(24) as usize;
        // On average a machine lacks a sixth of the troubles, so some are quiet enough for events
        // that take long.
        let mut setup = Setup { seed, steps, cpus, tasks, without: 0 };
        for trouble in TROUBLES {
            if random.one_in(6) {
                setup = setup.without(trouble);
            }
        }
        setup
    }

    /// Returns the setup of a machine with up to 512 CPUs and 5,000 tasks.
    pub fn large(seed: u64, steps: u64) -> Setup {
        let mut random = Random::new(seed ^ 0xface);
        let cpus = random.of(&[8, 16, 64, 256, 512]);
        let tasks = (cpus * random.of(&[2, 4, 10])).clamp(MANY_TASKS, 5000);
        Setup { cpus: cpus as u32, tasks: tasks as usize, ..Setup::new(seed, steps) }
    }

    /// Returns whether it is too large for its hogs and crowds to come by chance.
    pub fn is_large(&self) -> bool {
        self.tasks as u64 >= MANY_TASKS
    }

    /// Returns the setup of a machine without trouble.
    pub fn quiet(seed: u64, cpus: u32, tasks: usize) -> Setup {
        let setup = Setup { seed, steps: 0, cpus, tasks, without: 0 };
        TROUBLES.into_iter().fold(setup, Setup::without)
    }

    pub fn has(&self, trouble: Trouble) -> bool {
        self.without & 1 << trouble as u32 == 0
    }

    pub fn without(self, trouble: Trouble) -> Setup {
        Setup { without: self.without | 1 << trouble as u32, ..self }
    }

    pub fn ending(self, steps: u64) -> Setup {
        Setup { steps, ..self }
    }

    /// Returns all setups with one thing less.
    pub fn simpler(self) -> impl Iterator<Item = Setup> {
        let fewer = [
            Setup { cpus: 1, ..self },
            Setup { cpus: self.cpus - 1, ..self },
            Setup { tasks: self.tasks / 2, ..self },
            Setup { tasks: self.tasks - 1, ..self },
        ];
        let quieter = TROUBLES.into_iter().map(move |trouble| self.without(trouble));
        let possible = |it: &Setup| it.cpus > 0 && it.tasks > 0;
        quieter.chain(fewer).filter(move |it| *it != self && possible(it))
    }

    /// Returns the options of stalld.
    pub fn orders(&self) -> Orders {
        let mut random = Random::new(self.seed ^ 0xbeef);
        let threshold = random.of(&[10, 200, 1000, 2000, 2000, 5000, 60_000]);
        let granularity = random.of(&[100, 1000, 5000, 5000]);
        let limits =
            Limits { threshold: Nanos::from_millis(threshold), granularity: Nanos::from_millis(granularity) };
        let runtime = Nanos::from_micros(random.of(&[20, 20, 200, 1000]));
        let boost = Boost::fit(limits.threshold, None, None, Some(runtime));
        let how = match random.one_in(4) {
            true => BoostPolicy::Fifo,
            false => BoostPolicy::Deadline { runtime, period: boost.period },
        };
        let cost = random.of(&[runtime, Nanos::from_millis(1), Nanos::from_millis(4)]);
        let pulsed = if random.one_in(3) { Pulsed::All } else { Pulsed::Nothing };
        let (eyes, boosts, asks) =
            (random.of(&[Eyes::Stamps, Eyes::Stamps, Eyes::Presence]), !random.one_in(5), !random.one_in(4));
        let mut rules = Rules { pulsed, ..Rules::new(how, &boost, &limits, cost) };
        if random.one_in(4) {
            let max = MaxLoss { per_second: Nanos::ZERO, switching: Nanos::from_micros(5) };
            let smallest = max.hold(runtime);
            let per_second =
                random.of(&[smallest, Nanos::from_millis(1), Nanos::from_millis(20)]).max(smallest);
            let max_loss = Some(MaxLoss { per_second, ..max });
            rules = Rules { max_loss, ..Rules::new(BoostPolicy::Fifo, &boost, &limits, runtime) };
        }
        Orders { limits, boost, rules, eyes, boosts, asks }
    }
}

#[derive(Clone, Copy)]
pub struct Orders {
    pub limits: Limits,
    pub boost: Boost,
    pub rules: Rules,
    pub eyes: Eyes,
    pub boosts: bool,
    /// The backend asks whether any task can be waiting before it walks.
    pub asks: bool,
}

impl Orders {
    /// Returns whether a CPU may have these boosts at once. They take at most 2 % of it, but one
    /// boost is always allowed, and never more than 16.
    pub fn allows(&self, boosts: impl Iterator<Item = BoostPolicy>) -> bool {
        let Rules { cost, runtime, period, .. } = self.rules;
        let cost = |how| if how == BoostPolicy::Fifo { runtime } else { cost.max(runtime) };
        let costs: Vec<Nanos> = boosts.map(cost).collect();
        let sum = costs.iter().fold(Nanos::ZERO, |sum, &cost| sum + cost);
        let is_small = self.rules.max_loss.is_some() || sum.0 * 1_000_000 / period.0 <= 20_000;
        costs.len() <= 1 || costs.len() <= 16 && is_small
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Setup { seed, steps, cpus, tasks, .. } = self;
        write!(f, "seed={seed} steps={steps} cpus={cpus} tasks={tasks} with=")?;
        let has: Vec<String> =
            TROUBLES.iter().filter(|&&it| self.has(it)).map(|it| format!("{it:?}")).collect();
        f.write_str(&has.join("+"))
    }
}

/// Reads the output of `Display`. Parts that are missing follow from the seed.
impl FromStr for Setup {
    type Err = String;

    fn from_str(text: &str) -> Result<Setup, String> {
        let words = || text.split_whitespace().filter_map(|word| word.split_once('='));
        let number = |key: &str| {
            let word = words().find(|&(it, _)| it == key);
            word.map(|(_, value)| value.parse::<u64>().map_err(|e| format!("{key}={value}: {e}"))).transpose()
        };
        let mut setup = Setup::new(number("seed")?.ok_or("seed= is missing")?, 1_000_000);
        setup.steps = number("steps")?.unwrap_or(setup.steps);
        setup.cpus = number("cpus")?.map_or(setup.cpus, |cpus| cpus.clamp(1, 512) as u32);
        setup.tasks = number("tasks")?.map_or(setup.tasks, |tasks| tasks.clamp(1, 5000) as usize);
        if let Some((_, with)) = words().find(|&(key, _)| key == "with") {
            setup.without = 0;
            for trouble in TROUBLES.iter().filter(|it| !with.split('+').any(|word| word == format!("{it:?}")))
            {
                setup = setup.without(*trouble);
            }
        }
        Ok(setup)
    }
}
