//! What the options given so far amount to, and what is made of it at the end of the command line.

use super::length::{Length, Limits, NANOSECONDS, SECONDS, with_unit};
use super::{Boost, Command, Host, Mode, Options, UsageError};
use crate::denylist::Denylist;
use crate::task::Nanos;

pub(super) const THRESHOLD: Limits = Limits {
    unit: SECONDS,
    least: Nanos::from_secs(1),
    least_with_unit: Nanos::from_millis(10),
    most: Nanos::from_secs(3600),
};
pub(super) const GRANULARITY: Limits = Limits {
    unit: SECONDS,
    least: Nanos::from_secs(1),
    least_with_unit: Nanos::from_millis(10),
    most: Nanos::from_secs(600),
};
pub(super) const DURATION: Limits = Limits {
    unit: SECONDS,
    least: Nanos::from_secs(1),
    // A boost lasts for one period at least.
    least_with_unit: PERIOD.least,
    most: Nanos::from_secs(60),
};
pub(super) const PERIOD: Limits = Limits {
    unit: NANOSECONDS,
    least: Nanos::from_millis(200),
    least_with_unit: Nanos::from_millis(200),
    most: Nanos::from_secs(4),
};
pub(super) const RUNTIME: Limits = Limits {
    unit: NANOSECONDS,
    least: Nanos::from_micros(8),
    least_with_unit: Nanos::from_micros(8),
    most: Nanos::from_millis(1),
};

// The kernel wants the runtime within the period; here the two can't meet.
const _: () = assert!(RUNTIME.most.0 <= PERIOD.least.0);

/// The options as they are given. What depends on others waits here for the last of them.
pub(super) struct Draft {
    /// -h or -V, which end the command line where they stand.
    pub asked: Option<Command>,
    pub check: bool,
    pub threshold: Option<Length>,
    pub duration: Option<Length>,
    pub period: Option<Length>,
    pub options: Options,
}

impl Default for Draft {
    fn default() -> Draft {
        Draft {
            asked: None,
            check: false,
            threshold: None,
            duration: None,
            period: None,
            options: Options {
                cpus: None,
                affinity: None,
                threshold: Nanos::from_secs(60),
                threshold_has_unit: false,
                boost: Boost {
                    duration: Nanos::from_secs(3),
                    period: Nanos::from_secs(1),
                    runtime: Nanos::from_micros(20),
                },
                granularity: Nanos::from_secs(5),
                reservation: None,
                force_fifo: false,
                mode: Mode::Power,
                idle_detection: true,
                log_only: false,
                verbose: false,
                log_kmsg: false,
                log_syslog: false,
                foreground: false,
                ignore_threads: Denylist::default(),
                ignore_processes: Denylist::default(),
                backend: None,
                pidfile: None,
                systemd: false,
            },
        }
    }
}

impl Draft {
    /// Checks the options against each other and fits in those that were not given.
    pub fn resolve(mut self, host: &Host) -> Result<Command, UsageError> {
        if let Some(threshold) = &self.threshold {
            self.options.threshold = threshold.nanos;
            self.options.threshold_has_unit = threshold.has_unit;
        }
        self.resolve_boost()?;
        self.check_reservation()?;
        let mut options = self.options;
        options.foreground |= options.verbose || host.notify_socket;
        // A daemon without syslog would tell nobody.
        options.log_syslog |= !options.foreground;
        Ok(if self.check { Command::Check(options) } else { Command::Run(options) })
    }

    fn resolve_boost(&mut self) -> Result<(), UsageError> {
        let threshold = self.options.threshold;
        let boost = &mut self.options.boost;
        match &self.duration {
            Some(given) => boost.duration = given.nanos,
            None => boost.duration = boost.duration.min(threshold).max(DURATION.least_with_unit),
        }
        match &self.period {
            Some(given) => boost.period = given.nanos,
            None => boost.period = boost.period.min(boost.duration),
        }
        let duration = "boost duration";
        // No boost is short enough for a threshold below the shortest one.
        if boost.duration > threshold && threshold >= DURATION.least_with_unit {
            return Err(too_long(
                &shown("-d", &self.duration, boost.duration, duration),
                &shown("-t", &self.threshold, threshold, "threshold"),
            ));
        }
        if boost.period > boost.duration {
            return Err(too_long(
                &shown("-p", &self.period, boost.period, "boost period"),
                &shown("-d", &self.duration, boost.duration, duration),
            ));
        }
        Ok(())
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

/// `-d 5 (boost duration)`, as the user wrote it or, if not, as it turned out.
fn shown(option: &str, given: &Option<Length>, value: Nanos, what: &str) -> String {
    match given {
        Some(given) => format!("{option} {} ({what})", given.written),
        None => format!("{option} {} ({what}, by default)", with_unit(value)),
    }
}
