//! A victim that changes itself, or is stopped, in the middle of its boost.

use crate::scene::{Act, BOTH, Scene};

fn changes() -> Scene {
    let acts = ["move", "slack", "nice", "stop", "trace", "ping-pong"];
    Scene::new("changes", BOTH, acts.into_iter().map(Act::plain).collect())
}

scene!("changes", changes, others_are_served_while_victims_change_themselves,
    a_victim_that_changes_its_affinity_gains_no_rank => "move",
    a_victim_that_changes_its_timer_slack_gains_no_rank => "slack",
    a_victim_keeps_the_nice_value_that_it_raised => "nice",
    a_victim_that_is_stopped_by_a_signal_gains_no_rank => "stop",
    a_victim_that_is_stopped_by_a_tracer_gains_no_rank => "trace",
    threads_that_exec_in_turn_gain_no_rank => "ping-pong",
);
