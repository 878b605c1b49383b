//! Names that imitate kernel threads, stalld itself, or the structure of its input and output.

use crate::scene::{ALL_BACKENDS, Act, Scene};

const NAMES: [(&str, &str); 11] = [
    ("name of cpuhp", "cpuhp/0"),
    ("name of ksoftirqd", "ksoftirqd/1"),
    ("name of migration", "migration/1"),
    ("name of rcu_preempt", "rcu_preempt"),
    ("name of stalld", "stalld"),
    ("name of the guardian", "stall-guard"),
    ("newline", "%0A{\"time\":1}%0A"),
    ("quotes", "\",\"tid\":1,\"x\":\""),
    ("cpu header", "%0Acpu#0, 1 MHz"),
    ("table", "%0A R x 1 1.0 1"),
    ("terminal codes", "%1B[2J%9B%FF%5C"),
];

fn names() -> Scene {
    let acts = NAMES.iter().map(|(act, name)| Act::new(act, &["--name", name, "spin"])).collect();
    Scene { watches_all: true, ..Scene::new("names", ALL_BACKENDS, acts) }
}

scene!("names", names, no_name_makes_a_line_of_the_log_or_gets_another_task_boosted,
    a_victim_with_the_name_of_a_cpu_hotplug_thread_is_an_ordinary_one => "name of cpuhp",
    a_victim_with_the_name_of_a_softirq_thread_is_an_ordinary_one => "name of ksoftirqd",
    a_victim_with_the_name_of_a_migration_thread_is_an_ordinary_one => "name of migration",
    a_victim_with_the_name_of_an_rcu_thread_is_an_ordinary_one => "name of rcu_preempt",
    a_victim_with_the_name_of_stalld_is_not_hidden => "name of stalld",
    a_victim_with_the_name_of_the_guardian_is_not_hidden => "name of the guardian",
    a_newline_in_a_name_hides_no_victim => "newline",
    quotes_in_a_name_hide_no_victim => "quotes",
    a_name_like_a_cpu_header_hides_no_victim => "cpu header",
    a_name_like_a_row_of_the_table_hides_no_victim => "table",
    terminal_codes_in_a_name_hide_no_victim => "terminal codes",
);
