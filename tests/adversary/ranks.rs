//! No task keeps a rank that a boost gave.

use crate::scene::{Act, BOTH, BOTH_AND_TEXT, Scene};
use stalld::task::Nanos;

fn ranks() -> Scene {
    let loops = [
        "keep-fifo",
        "keep-rr",
        "keep-equal",
        "keep-lowest",
        "keep-batch",
        "keep-idle",
        "keep-deadline",
        "keep-nice",
        "helper",
        "child",
        "handler",
        "exec",
    ];
    let mut acts: Vec<Act> = loops.into_iter().map(Act::plain).collect();
    acts.push(Act::new("fifo-keeps-fifo", &["keep-fifo"]).fifo());
    acts.push(Act::new("fifo-keeps-rr", &["keep-rr"]).fifo());
    acts.push(Act::new("cpuhp", &["--name", "cpuhp/0", "keep-fifo"]));
    Scene { watches_all: true, ..Scene::new("ranks", BOTH_AND_TEXT, acts) }
}

scene!("ranks", ranks, others_are_served_while_tasks_try_to_keep_a_rank,
    a_victim_does_not_keep_sched_fifo => "keep-fifo",
    a_victim_does_not_keep_sched_rr => "keep-rr",
    a_victim_does_not_keep_the_priority_of_a_pulse => "keep-equal",
    a_victim_does_not_keep_the_lowest_fifo_priority => "keep-lowest",
    a_victim_that_becomes_batch_gains_no_rank => "keep-batch",
    a_victim_that_becomes_idle_gains_no_rank => "keep-idle",
    a_victim_does_not_get_a_budget_of_its_own => "keep-deadline",
    a_victim_does_not_lower_its_nice_value => "keep-nice",
    a_helper_thread_keeps_no_rank_for_a_victim => "helper",
    a_child_of_a_boosted_task_keeps_no_rank => "child",
    a_signal_handler_keeps_no_rank => "handler",
    a_program_executed_in_a_boost_keeps_no_rank => "exec",
    a_fifo_victim_does_not_rise_within_sched_fifo => "fifo-keeps-fifo",
    a_fifo_victim_does_not_rise_to_sched_rr => "fifo-keeps-rr",
    a_victim_with_the_name_of_cpuhp_keeps_no_rank => "cpuhp",
);

fn births() -> Scene {
    let length = Nanos::from_secs(6);
    Scene { crowd: 24, length, ..Scene::new("births", BOTH, vec![Act::plain("born")]) }
}

scene!("births", births, others_are_served_while_victims_fork_in_each_boost,
    a_child_whose_birth_a_boost_interrupts_gains_no_rank => "born",
);

fn thefts() -> Scene {
    let acts = ["keep-fifo", "child", "handler"].map(Act::plain);
    let length = Nanos::from_secs(6);
    Scene { crowd: 12, length, is_stolen: true, ..Scene::new("thefts", BOTH, acts.into()) }
}

scene!("thefts", thefts, others_are_served_while_a_hypervisor_takes_the_cpu_of_stalld,
    a_victim_keeps_no_rank_of_a_pulse_that_stalld_ends_late => "keep-fifo",
    a_child_keeps_no_rank_of_a_pulse_that_stalld_ends_late => "child",
    a_signal_handler_keeps_no_rank_of_a_pulse_that_stalld_ends_late => "handler",
);
