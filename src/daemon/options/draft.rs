//! The options parsed so far, and the checks and defaults at the end of the command line.

use super::{Boost, BoostMethod, Command, Format, HostFacts, Mode, Options, UsageError};
use crate::length::{Length, LengthLimits, NANOSECONDS, SECONDS, Unit, with_unit};
use crate::patterns::Patterns;
use crate::task::{Nanos, Tid};
use crate::timing::{self, Misfit};
use std::ops::RangeInclusive;

pub(super) const THRESHOLD: LengthLimits = limits(SECONDS, Nanos::from_secs(1), timing::THRESHOLD);
pub(super) const GRANULARITY: LengthLimits = limits(SECONDS, Nanos::from_secs(1), timing::GRANULARITY);
pub(super) const DURATION: LengthLimits = limits(SECONDS, Nanos::from_secs(1), timing::DURATION);
pub(super) const PERIOD: LengthLimits = limits(NANOSECONDS, *timing::PERIOD.start(), timing::PERIOD);
pub(super) const RUNTIME: LengthLimits = limits(NANOSECONDS, *timing::RUNTIME.start(), timing::RUNTIME);

const fn limits(unit: Unit, least: Nanos, range: RangeInclusive<Nanos>) -> LengthLimits {
    LengthLimits { unit, least, least_with_unit: *range.start(), most: *range.end() }
}

/// The options as given. Values that depend on other options wait here for the end of the command
/// line.
pub struct Draft {
    /// The command of -h, -V or --recover, which ends the command line.
    pub asked: Option<Command>,
    pub job: Job,
    pub threshold: Option<Length>,
    pub duration: Option<Length>,
    pub period: Option<Length>,
    pub runtime: Option<Length>,
    pub options: Options,
}

/// The job that stalld does with the options.
#[derive(Clone, Copy, Debug)]
pub enum Job {
    Run,
    Check,
    WritePidfile(Tid),
}

impl Default for Draft {
    fn default() -> Draft {
        Draft {
            asked: None,
            job: Job::Run,
            threshold: None,
            duration: None,
            period: None,
            runtime: None,
            options: Options {
                cpus: None,
                affinity: None,
                threshold: timing::DEFAULT_THRESHOLD,
                threshold_has_unit: false,
                boost: Boost::fit(timing::DEFAULT_THRESHOLD, None, None, None),
                granularity: timing::DEFAULT_GRANULARITY,
                reservation: None,
                boost_method: BoostMethod::Auto,
                max_loss: None,
                mode: Mode::Power,
                idle_detection: true,
                log_only: false,
                verbose: false,
                log_kmsg: false,
                log_syslog: false,
                log_format: Format::Text,
                foreground: false,
                ignore_threads: Patterns::default(),
                ignore_processes: Patterns::default(),
                backend: None,
                pidfile: None,
                metrics: None,
                trace: None,
                systemd: false,
            },
        }
    }
}

impl Draft {
    /// Checks the options against each other, and sets defaults for those not given.
    pub(super) fn resolve(mut self, host: &HostFacts) -> Result<Command, UsageError> {
        let path = self.options.pidfile.take();
        match self.job {
            Job::WritePidfile(pid) => return Ok(Command::WritePidfile { path, pid }),
            Job::Run | Job::Check => self.options.pidfile = path,
        }
        if let Some(threshold) = &self.threshold {
            self.options.threshold = threshold.nanos;
            self.options.threshold_has_unit = threshold.has_unit;
        }
        self.resolve_boost()?;
        self.check_reservation()?;
        self.resolve_max_loss()?;
        let mut options = self.options;
        options.foreground |= options.verbose;
        // A daemon has no terminal. This also holds where a service manager keeps it in the
        // foreground.
        options.log_syslog |= !options.foreground;
        // The configuration of an old C stalld may have an empty LOGGING= and -f, because that
        // release logged to syslog without being asked.
        options.log_syslog |= host.notify_socket && !options.verbose && !options.log_kmsg;
        options.foreground |= host.notify_socket;
        Ok(if matches!(self.job, Job::Check) { Command::Check(options) } else { Command::Run(options) })
    }

    fn resolve_boost(&mut self) -> Result<(), UsageError> {
        let threshold = self.options.threshold;
        let given = |length: &Option<Length>| length.as_ref().map(|length| length.nanos);
        let boost = Boost::fit(threshold, given(&self.duration), given(&self.period), given(&self.runtime));
        self.options.boost = boost;
        let duration = shown("-d", self.duration.as_ref(), boost.duration, "boost duration");
        match boost.misfit(threshold) {
            None => Ok(()),
            Some(Misfit::Duration) => {
                Err(too_long(&duration, &shown("-t", self.threshold.as_ref(), threshold, "threshold")))
            }
            Some(Misfit::Period) => {
                Err(too_long(&shown("-p", self.period.as_ref(), boost.period, "boost period"), &duration))
            }
        }
    }

    /// Chooses pulses if there is a bound on the loss, because only pulses keep to it.
    fn resolve_max_loss(&mut self) -> Result<(), UsageError> {
        match (self.options.max_loss, self.options.boost_method) {
            (Some(share), BoostMethod::Deadline) => Err(UsageError::new(format!(
                "--max-loss {share} does not go with --boost deadline: only boosts by SCHED_FIFO keep to it"
            ))),
            (Some(_), _) => {
                self.options.boost_method = BoostMethod::Fifo;
                Ok(())
            }
            (None, _) => Ok(()),
        }
    }

    fn check_reservation(&self) -> Result<(), UsageError> {
        let mode = match self.options.mode {
            Mode::Power => return Ok(()),
            Mode::Adaptive => "-M (adaptive mode)",
            Mode::Aggressive => "-A (aggressive mode)",
        };
        match self.options.reservation {
            Some(percent) => Err(UsageError::new(format!(
                "-R {percent} (reservation) does not go with {mode}: it is for one thread, and this mode has several"
            ))),
            None => Ok(()),
        }
    }
}

fn too_long(longer: &str, shorter: &str) -> UsageError {
    UsageError::new(format!("{longer} is longer than {shorter}"))
}

/// Returns `-d 5 (boost duration)`: the value as the user wrote it, else the default.
fn shown(option: &str, given: Option<&Length>, value: Nanos, what: &str) -> String {
    match given {
        Some(given) => format!("{option} {} ({what})", given.written),
        None => format!("{option} {} ({what}, by default)", with_unit(value)),
    }
}
