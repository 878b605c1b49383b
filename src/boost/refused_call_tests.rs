//! The kernel refuses some calls that start or end a boost.

use super::*;

#[test]
fn a_refused_call_is_repeated_so_that_no_thread_keeps_a_rank() {
    let every_second: [fn(u32) -> bool; 2] = [|call| call % 2 == 0, |call| call % 2 == 1];
    for refuses in every_second {
        let kernel = Scripted::default();
        let mut actuator = actuator(&kernel, &journal(), |_| {});
        for before in [None, Some(Saved::of(&kernel, TASK, &Attr::default()))] {
            kernel.state().refuses = Some(refuses);
            let raised = match before {
                None => actuator.pulse(&task(), before).map(|pulse| pulse.raised),
                Some(_) => actuator.raise(&task(), PERIOD),
            };
            // A boost may fail, but its restore must not.
            if let Ok(raised) = raised {
                assert!(matches!(actuator.restore(&raised), RestoreOutcome::Restored(TASK)));
            }
            assert_eq!(kernel.state().attr.policy, Policy::OTHER);
            let own = kernel.state().log.iter().rfind(|what| what.starts_with("self")).cloned();
            assert!(own.is_none_or(|own| own.starts_with("self SCHED_FIFO 10")));
        }
    }
}

#[test]
fn a_thread_that_can_not_leave_fifo_99_at_once_leaves_it_later() {
    let kernel = Scripted::default();
    let mut actuator = actuator(&kernel, &journal(), |_| {});
    // The five calls enter FIFO 99, boost the task, restore it, and fail twice to leave FIFO 99.
    kernel.state().refuses = Some(|call| call == 4 || call == 5);
    let pulse = actuator.pulse(&task(), None).unwrap();
    assert!(matches!(pulse.outcome, RestoreOutcome::Restored(TASK)));
    let last = || kernel.state().log.last().cloned().unwrap();
    assert!(last().starts_with("task SCHED_OTHER"), "{}", last());
    actuator.descend();
    assert!(last().starts_with("self SCHED_FIFO 10"), "{}", last());
}
