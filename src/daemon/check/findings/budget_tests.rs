//! Tests the findings about how the kernel ends the budgets of boosts.

use super::*;

/// Makes a host that is locked down, so that HRTICK can't be turned on.
fn locked(is_on: Result<bool, Error>) -> impl Fn(&mut Facts) {
    move |facts| {
        facts.lockdown = Lockdown::Integrity;
        let (path, writable) = ("/sys/kernel/debug/sched/features".into(), Err(no_permission()));
        facts.hrtick = Some(HrtickFile { path, feature: None, is_on: is_on.clone(), writable });
    }
}

#[test]
fn without_hrtick_a_boost_by_deadline_costs_a_tick() {
    let cost = "a boost of 20us may take a CPU for up to a tick (4ms)";
    let deadline = &["--boost", "deadline"];
    let off = format!("Note HRTICK is off and can't be turned on (kernel lockdown is 'integrity'): {cost}");
    assert!(changes(deadline, locked(Ok(false))).contains(&off));
    let unseen =
        format!("Note HRTICK can be neither seen nor turned on (kernel lockdown is 'integrity'): {cost}");
    assert!(changes(deadline, locked(Err(no_permission()))).contains(&unseen));
    // With one CPU, stalld cannot end a pulse from another one.
    let with_one_cpu = |facts: &mut Facts| {
        locked(Err(no_permission()))(facts);
        facts.has_one_cpu = true;
    };
    assert!(changes(&[], with_one_cpu).contains(&unseen));
    let no_debugfs = format!("Note HRTICK can be neither seen nor turned on: {cost}");
    assert_changes(deadline, |facts| (facts.hrtick, facts.debugfs) = (None, None), &[&no_debugfs]);
    assert_changes(
        &[],
        |facts| facts.hrtick.as_mut().unwrap().is_on = Ok(false),
        &["Ok HRTICK is off; stalld turns it on when it starts"],
    );
}

#[test]
fn the_bound_on_what_boosts_take_allows_some_number_of_boosts() {
    let at = |share: &str, micros: u64| -> Vec<String> {
        let facts = Facts { switching: Some(Nanos::from_micros(micros)), ..good() };
        of(&facts, &asked(&["--max-loss", share])).iter().map(shown).collect()
    };
    let allowed = "Ok --max-loss 0.1% allows at least 17 boosts a second on a CPU, of up to 55 us each";
    assert!(at("0.1%", 5).contains(&allowed.to_string()), "{:?}", at("0.1%", 5));
    let most = "Ok --max-loss 2% allows at least 50 boosts a second on a CPU, of up to 55 us each";
    assert!(at("2%", 5).contains(&most.to_string()));
    let too_small = "Failure --max-loss 0.005%: one boost of 20us takes more of a second";
    assert!(at("0.005%", 5).iter().any(|line| line.starts_with(too_small)), "{:?}", at("0.005%", 5));
    let just_one = "Ok --max-loss 0.011% allows at least 1 boosts a second on a CPU, of up to 55 us each";
    assert!(at("0.011%", 5).contains(&just_one.to_string()), "{:?}", at("0.011%", 5));
    let unknown = |share: &str| -> Vec<String> {
        of(&good(), &asked(&["--max-loss", share])).iter().map(shown).collect()
    };
    assert!(unknown("1%").iter().any(|line| line.contains("stalld assumes 50us")), "{:?}", unknown("1%"));
    // That much is refused at the start, too.
    assert!(unknown("0.006%").iter().any(|line| line.starts_with("Failure --max-loss 0.006%")));
}

#[test]
fn late_budgets_and_throttling_together_are_no_warning() {
    let findings = changes(&[], |facts| {
        locked(Ok(false))(facts);
        facts.ends_budgets_in_time = Some(false);
        facts.throttling = throttled();
        facts.trial = tried(refused(libc::EPERM), Ok(()));
    });
    assert!(!findings.iter().any(|line| line.starts_with("Warning")), "{findings:?}");
}

#[test]
fn where_hrtick_can_not_be_turned_on_the_measurement_decides() {
    for (in_time, finding, policy) in [
        (Some(true), "Ok the kernel ends a budget of SCHED_DEADLINE in time, as measured", "SCHED_DEADLINE"),
        (
            Some(false),
            "Ok the kernel ends a budget of SCHED_DEADLINE only after a tick (4ms): tasks are boosted in pulses",
            "SCHED_FIFO",
        ),
        (
            None,
            "Note whether the kernel ends a budget of SCHED_DEADLINE in time will be measured at the start: if not, \
             tasks are boosted in pulses",
            "SCHED_DEADLINE or SCHED_FIFO",
        ),
    ] {
        let findings = changes(&[], |facts| {
            locked(Ok(false))(facts);
            facts.ends_budgets_in_time = in_time;
        });
        assert!(findings.iter().any(|line| line == finding), "{findings:?}");
        let verdict =
            format!("stalld would protect this host: task_iter finds starving tasks, {policy} lets them run");
        let last = findings.last().filter(|line| line.starts_with("stalld would"));
        assert!(last.is_none_or(|line| *line == verdict), "{findings:?}");
        assert_eq!(last.is_some(), policy != "SCHED_DEADLINE", "{findings:?}");
    }
}
