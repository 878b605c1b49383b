//! Ranks that tasks get during a pulse, or from one.

use super::*;
use crate::task::TaskId;

fn pulse_of(before: Attr, how: BoostPolicy, meanwhile: Attr) -> (RestoreOutcome, Policy, u32, u64) {
    pulse_of_task(&task(), before, how, meanwhile)
}

fn pulse_of_task(
    task: &Task,
    before: Attr,
    how: BoostPolicy,
    meanwhile: Attr,
) -> (RestoreOutcome, Policy, u32, u64) {
    let (kernel, journal) = (Scripted::default(), journal());
    (kernel.state().attr, kernel.state().slack) = (before, 50_000);
    let mut actuator = actuator(&kernel, &journal, |_| {});
    let raised = actuator.note(task, None, how, PERIOD).and_then(|noted| actuator.make(noted)).unwrap();
    (kernel.state().attr, kernel.state().slack) = (meanwhile, 0);
    let outcome = actuator.restore(&raised);
    let state = kernel.state();
    (outcome, state.attr.policy, state.attr.priority, state.slack)
}

const FIFO_97: Attr = attr(Policy::FIFO, 97);

#[test]
fn a_rank_above_its_own_that_is_set_in_a_pulse_is_lowered() {
    for (before, meanwhile) in [
        (Attr::default(), FIFO_97),
        (Attr::default(), attr(Policy::RR, 1)),
        (attr(Policy::FIFO, 10), attr(Policy::RR, 11)),
        (attr(Policy::IDLE, 0), attr(Policy::OTHER, 0)),
    ] {
        let (outcome, policy, priority, slack) = pulse_of(before, BoostPolicy::Fifo, meanwhile);
        let RestoreOutcome::Lowered { tid: TASK, from } = outcome else { panic!("{outcome:?}") };
        assert_eq!((from.policy, from.priority), (meanwhile.policy, meanwhile.priority));
        assert_eq!((policy, priority), (before.policy, before.priority));
        let has_slack = !before.policy.is_realtime();
        assert_eq!(slack, if has_slack { 50_000 } else { 0 });
    }
}

#[test]
fn a_privileged_task_keeps_a_rank_that_is_set_in_a_pulse_or_after_it() {
    for (owner, policy) in [(Owner::Privileged, Policy::FIFO), (Owner::User(1000), Policy::OTHER)] {
        let task = Task { owner, ..task() };
        let (_, policy_after, ..) = pulse_of_task(&task, Attr::default(), BoostPolicy::Fifo, FIFO_97);
        assert_eq!(policy_after, policy, "{owner:?}");

        let kernel = Scripted::default();
        let mut actuator = actuator(&kernel, &journal(), |_| {});
        let Pulse { raised, .. } = actuator.pulse(&task, None).unwrap();
        kernel.state().attr = FIFO_97;
        actuator.lower_late(&raised);
        assert_eq!(kernel.state().attr.policy, policy, "{owner:?}");
    }
}

#[test]
fn an_equal_or_lower_rank_that_is_set_in_a_pulse_stays() {
    for (before, meanwhile) in [
        (attr(Policy::FIFO, 50), attr(Policy::RR, 50)),
        (attr(Policy::FIFO, 50), attr(Policy::FIFO, 1)),
        (attr(Policy::FIFO, 50), attr(Policy::OTHER, 0)),
        (Attr::default(), attr(Policy::BATCH, 0)),
        (Attr::default(), attr(Policy::IDLE, 0)),
        // Only a privileged process can set this policy.
        (Attr::default(), attr(Policy::DEADLINE, 0)),
    ] {
        let (outcome, policy, priority, _) = pulse_of(before, BoostPolicy::Fifo, meanwhile);
        assert!(
            matches!(outcome, RestoreOutcome::ChangedByOthers(now) if now == meanwhile.policy),
            "{outcome:?}"
        );
        assert_eq!((policy, priority), (meanwhile.policy, meanwhile.priority));
    }
}

#[test]
fn a_policy_that_is_set_in_a_deadline_boost_stays() {
    let how = BoostPolicy::Deadline { runtime: BUDGET, period: PERIOD };
    let (outcome, policy, priority, _) = pulse_of(Attr::default(), how, FIFO_97);
    assert!(matches!(outcome, RestoreOutcome::ChangedByOthers(Policy::FIFO)), "{outcome:?}");
    assert_eq!((policy, priority), (Policy::FIFO, 97));
}

#[test]
fn a_rank_that_is_set_after_the_guardian_has_restored_the_task_stays() {
    let (kernel, journal) = (Scripted::default(), journal());
    let mut actuator = actuator(&kernel, &journal, |_| {});
    let noted = actuator.note(&task(), None, BoostPolicy::Fifo, PERIOD).unwrap();
    let raised = actuator.make(noted).unwrap();
    // The guardian restores the task, and clears the record.
    assert!(journal.claim(raised.slot));
    kernel.state().attr = FIFO_97;
    journal.clear(raised.slot);
    assert!(matches!(actuator.restore(&raised), RestoreOutcome::ChangedByOthers(Policy::FIFO)));
}

/// Returns whether a child is lowered that is born during a pulse of a task which had `before`.
fn is_lowered(before: Attr, child: Attr, prio: i32, arrange: impl Fn(&mut State)) -> bool {
    let kernel = Scripted::default();
    kernel.state().attr = before;
    let mut actuator = actuator(&kernel, &journal(), |_| {});
    let task = Task { owner: Owner::User(1000), ..task() };
    let Pulse { raised, .. } = actuator.pulse(&task, None).unwrap();
    let mut parents = Probation::default();
    parents.begin(&task, &raised, Nanos::ZERO);
    kernel.state().others.push((YOUNG, child));
    kernel.state().children.push(YOUNG);
    kernel.state().young_prio = prio;
    arrange(&mut kernel.state());
    let mut lowered = Vec::new();
    actuator.lower_children(&parents, &mut |child| lowered.push(child));
    let after = kernel.get_attr(YOUNG).unwrap();
    match lowered[..] {
        [] => assert_eq!((after.policy, after.priority), (child.policy, child.priority)),
        [LoweredChild { task, raised, .. }] => {
            let own = raised.boosted.before;
            assert_eq!((after.policy, after.priority), (own.policy, own.priority));
            assert_eq!((task.id(), raised.boosted.tid), (TaskId { tid: YOUNG, start: START + 1 }, YOUNG));
            // The child is on probation from now on, and the rank that a late call sets is lowered.
            parents.begin(&task, &raised, Nanos::ZERO);
            kernel.state().others[0].1 = FIFO_97;
            assert!(matches!(actuator.lower_late(&raised), Some(RestoreOutcome::Lowered { .. })));
        }
        _ => panic!("{lowered:?}"),
    }
    !lowered.is_empty()
}

#[test]
fn a_child_keeps_only_a_priority_that_it_may_set_or_that_its_parent_had() {
    let fair = Attr::default();
    for (child, limit, before, expected) in [
        (attr(Policy::FIFO, 98), 0, fair, true),
        (FIFO_97, 0, fair, true),
        (attr(Policy::RR, 1), 0, fair, true),
        (FIFO_97, 97, fair, false),
        (FIFO_97, 96, attr(Policy::FIFO, 10), true),
        (attr(Policy::FIFO, 10), 0, attr(Policy::FIFO, 10), false),
        (fair, 0, fair, false),
    ] {
        let is_lowered = is_lowered(before, child, 120, |state| state.priority_limit = limit);
        assert_eq!(is_lowered, expected, "{child:?} {limit}");
    }
    // The rank of the pulse without its policy.
    assert!(is_lowered(fair, fair, 1, |_| {}));
}

#[test]
fn an_orphan_is_known_by_its_owner_and_an_inherited_rank_stays() {
    let fair = Attr::default();
    let is_orphan = |state: &mut State| state.children.clear();
    assert!(!is_lowered(fair, FIFO_97, 120, is_orphan));
    assert!(is_lowered(fair, FIFO_97, 120, |state| {
        is_orphan(state);
        state.owner = Owner::User(1000);
        state.has_ended = true;
    }));
    let with_elder = |state: &mut State| {
        state.threads = vec![TASK, ELDER];
        state.others.push((ELDER, FIFO_97));
    };
    assert!(!is_lowered(fair, FIFO_97, 120, with_elder));
    assert!(is_lowered(fair, attr(Policy::FIFO, 98), 120, with_elder));
    // The parent may have its rank from its own pulse.
    assert!(is_lowered(fair, FIFO_97, 120, |state| (state.attr, state.threads) = (FIFO_97, vec![TASK])));
}

#[test]
fn a_rank_set_in_a_pulse_that_the_guardian_ended_first_is_lowered() {
    let (kernel, journal) = (Scripted::default(), journal());
    let own = Arc::clone(&journal);
    // The guardian takes the record over before the pulse begins.
    let actuator = actuator(&kernel, &journal, |_| {});
    let task = Task { owner: Owner::User(1000), ..task() };
    let noted = actuator.note(&task, None, BoostPolicy::Fifo, PERIOD).unwrap();
    own.forget(noted.slot);
    kernel.state().raises_to = Some(FIFO_97);
    let pulse = actuator.pulse_from_the_top(Cpu(1), noted).unwrap();
    assert!(matches!(pulse.outcome, RestoreOutcome::Lowered { .. }), "{pulse:?}");
    assert_eq!((pulse.run, kernel.state().attr.policy), (Run::Missed, Policy::OTHER));
}
