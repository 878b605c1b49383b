use super::*;
use rig::scratch::Scratch;

/// Returns ascending numbers, so that each shows its position.
fn row(from: u64, count: u64) -> String {
    (from..from + count).map(|n| format!(" {n}")).collect()
}

/// Returns a text in the documented format of this version: two CPUs with a domain each.
fn made(version: u32) -> String {
    let (name, per_type) = if version == 17 { (" MC", 11) } else { ("", 8) };
    let domain = format!("domain0{name} 00000000,00000003{}\n", row(100, 3 * per_type + 12));
    let cpu = |cpu: u32, from: u64| format!("cpu{cpu} {from} 0{}\n{domain}", row(from + 1, 7));
    format!("version {version}\ntimestamp 4294907296\n{}{}", cpu(0, 1), cpu(1, 11))
}

/// Files of Linux 6.1, 6.12 and 7.2, two of each a second apart, from a machine with two nodes of
/// two hardware threads.
const TAKEN: [(u32, &str, &str); 3] = [
    (
        15,
        include_str!("../../tests/fixtures/schedstat/15-before.txt"),
        include_str!("../../tests/fixtures/schedstat/15-after.txt"),
    ),
    (
        16,
        include_str!("../../tests/fixtures/schedstat/16-before.txt"),
        include_str!("../../tests/fixtures/schedstat/16-after.txt"),
    ),
    (
        17,
        include_str!("../../tests/fixtures/schedstat/17-before.txt"),
        include_str!("../../tests/fixtures/schedstat/17-after.txt"),
    ),
];

fn parsed(version: u32) -> Schedstat {
    parse(made(version).as_bytes()).unwrap()
}

fn refused(text: &str) -> String {
    parse(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn the_numbers_of_a_cpu_are_the_same_in_all_versions() {
    for version in 15..=17 {
        let stat = parsed(version);
        assert_eq!((stat.version, stat.cpus.len()), (version, 2));
        assert_eq!(stat.cpus[1].cpu, Cpu(1));
        let expected = CpuCounters {
            yields: 11,
            schedules: 12,
            idles: 13,
            wakeups: 14,
            local_wakeups: 15,
            ran_ns: 16,
            waited_ns: 17,
            slices: 18,
        };
        assert_eq!(stat.cpus[1].counters, expected);
        assert_eq!(stat.cpus[1].domains[0].cpus, CpuSet::first(2));
    }
}

#[test]
fn files_of_real_kernels_are_read_and_have_grown() {
    for (version, before, after) in TAKEN {
        let (before, after) = (parse(before.as_bytes()).unwrap(), parse(after.as_bytes()).unwrap());
        assert_eq!((before.version, before.cpus.len()), (version, 4));
        let grew = delta(&before, &after);
        for (cpu, before) in grew.cpus.iter().zip(&before.cpus) {
            assert!(cpu.counters.wakeups > 0 && cpu.counters.local_wakeups <= cpu.counters.wakeups);
            assert!(cpu.counters.ran_ns > 0 && cpu.counters.ran_ns < 2_000_000_000, "{cpu:?}");
            let domains: Vec<_> = cpu.domains.iter().map(|domain| domain.cpus.to_string()).collect();
            assert_eq!(domains, [if cpu.cpu.0 < 2 { "0-1" } else { "2-3" }, "0-3"]);
            // An almost idle machine balances mostly when a CPU is idle.
            let [busy, idle, _] = before.domains[0].balance;
            assert!(busy.count < idle.count && busy.balanced <= busy.count && idle.balanced <= idle.count);
        }
        let names = grew.cpus[3].domains.iter().map(|domain| domain.name.as_deref());
        let expected = if version == 17 { [Some("SMT"), Some("NUMA")] } else { [None, None] };
        assert_eq!(names.collect::<Vec<_>>(), expected);
    }
}

#[test]
fn busy_and_idle_changed_places_in_version_16() {
    let counts = |version| parsed(version).cpus[0].domains[0].balance.map(|balance| balance.count);
    assert_eq!(counts(15), [108, 100, 116]);
    assert_eq!(counts(16), [100, 108, 116]);
    assert_eq!(counts(17), [100, 111, 122]);
}

#[test]
fn an_imbalance_has_four_parts_and_a_domain_a_name_from_version_17_on() {
    let domain = |version| parsed(version).cpus[0].domains[0].clone();
    let (old, new) = (domain(16), domain(17));
    assert_eq!((old.name.as_deref(), new.name.as_deref()), (None, Some("MC")));
    assert_eq!((old.balance[0].imbalance, old.balance[0].gained), (103, 104));
    assert_eq!((new.balance[0].imbalance, new.balance[0].imbalance_load), (0, 103));
    assert_eq!((new.balance[0].imbalance_misfit, new.balance[0].gained), (106, 107));
    assert_eq!((new.balance[2].no_busier_group, new.moves.active_count), (132, 133));
    assert_eq!((old.moves.active_count, old.moves.wake_balance), (124, 135));
}

#[test]
fn a_mask_has_its_lowest_cpus_last() {
    let shown = |text: &str| mask(text.as_bytes()).map(|set| set.to_string());
    assert_eq!(shown("ff").as_deref(), Some("0-7"));
    assert_eq!(shown("80000000,00000000,00000005").as_deref(), Some("0,2,95"));
    assert_eq!((shown(""), shown("3,"), shown("x"), shown("100000000")), (None, None, None, None));
}

#[test]
fn an_unknown_format_is_an_error_of_one_line() {
    assert_eq!(refused(""), "the first line tells no version");
    assert_eq!(refused("cpu0 1 2 3"), "the first line tells no version");
    assert_eq!(refused("version 18\n"), "version 18 is not known: 15, 16 and 17 are");
    assert_eq!(refused("version 14\n"), "version 14 is not known: 15, 16 and 17 are");
    let short = "version 15\ncpu3 1 0 3 4 5 6 7 8\n";
    assert_eq!(refused(short), "the line of CPU 3 is not what its version has");
    assert_eq!(refused("version 15\ncpu3\n"), "the line of CPU 3 is not what its version has");
    assert_eq!(refused("version 15\ndomain0 3 1 2\n"), "domain 0 belongs to no CPU");
    // The numbers of one version do not fit another one.
    for (version, other) in [("15", 17), ("17", 15), ("17", 16)] {
        let text = made(other).replacen(&other.to_string(), version, 1);
        assert_eq!(refused(&text), "the line of domain 0 of CPU 0 is not what its version has", "{version}");
    }
}

#[test]
fn a_kernel_without_the_file_lacks_a_named_option() {
    let root = Scratch::new("schedstat-none");
    let error = read(root.path()).unwrap_err().to_string();
    assert!(error.ends_with("(this kernel is built without CONFIG_SCHEDSTATS)"), "{error}");
    root.file("proc/schedstat", "version 99\n");
    let error = read(root.path()).unwrap_err().to_string();
    assert!(error.ends_with("proc/schedstat: version 99 is not known: 15, 16 and 17 are"), "{error}");
    root.file("proc/schedstat", &made(17));
    assert_eq!(read(root.path()), Ok(parsed(17)));
}

#[test]
fn a_counter_that_restarted_has_grown_too() {
    assert_eq!((grown(12, 5), grown(7, 7)), (7, 0));
    assert_eq!(grown(3, u64::from(u32::MAX) - 1), 5);
    // The kernel has rebuilt the domain.
    assert_eq!(grown(40, 1000), 40);
    assert_eq!(grown(3, u64::MAX - 1), 3);
}

#[test]
fn only_what_was_there_at_both_ends_has_grown() {
    let (before, mut after) = (parsed(16), parsed(16));
    after.cpus[0].counters.ran_ns += 500;
    after.cpus[0].domains[0].balance[1].gained += 2;
    after.cpus[0].domains[0].moves.wake_affine += 3;
    let grew = delta(&before, &after);
    assert_eq!(grew.cpus[0].counters, CpuCounters { ran_ns: 500, ..CpuCounters::default() });
    assert_eq!(grew.cpus[0].domains[0].balance[1], Balance { gained: 2, ..Balance::default() });
    assert_eq!(grew.cpus[0].domains[0].moves, Moves { wake_affine: 3, ..Moves::default() });
    assert_eq!(grew.cpus[1].counters, CpuCounters::default());

    // CPU 1 went offline, CPU 2 came online, and so the domains differ.
    after.cpus[1].cpu = Cpu(2);
    after.cpus[0].domains[0].cpus = [Cpu(0), Cpu(2)].into_iter().collect();
    let grew = delta(&before, &after);
    assert_eq!(grew.cpus.len(), 1);
    assert_eq!(grew.cpus[0].domains, after.cpus[0].domains);
}

#[test]
fn the_tables_have_a_row_per_cpu_and_three_per_domain() {
    let mut grew = delta(&parsed(17), &parsed(17));
    for cpu in &mut grew.cpus {
        cpu.counters = CpuCounters {
            yields: 1,
            schedules: 400,
            idles: 100,
            wakeups: 300,
            local_wakeups: 60,
            ran_ns: 500_000_000,
            waited_ns: 3_000_000_000,
            slices: 300,
        };
        cpu.domains[0].balance[1].count = 10;
        cpu.domains[0].balance[1].failed = 1;
        cpu.domains[0].moves.wake_remote = 7;
    }
    assert_eq!(
        show(&grew, Nanos::from_secs(2)),
        "CPU  RAN%  WAITED%  US/SLICE  SCHED/S  IDLE%  WAKE/S  LOCAL%  YIELD/S
0    25.0    150.0   10000.0    200.0   25.0   150.0    20.0      0.5
1    25.0    150.0   10000.0    200.0   25.0   150.0    20.0      0.5

DOMAIN        WHEN  BALANCE/S  BALANCED%  FAILED%  GAINED/S  HOT/S
0 MC          busy        0.0          -        -       0.0    0.0
0 MC          idle       10.0        0.0     10.0       0.0    0.0
0 MC    newly_idle        0.0          -        -       0.0    0.0

DOMAIN  ACTIVE/S  FAILED%  PUSHED/S  REMOTE/S  AFFINE/S  PASSIVE/S
0 MC         0.0        -       0.0       7.0       0.0        0.0
"
    );
    grew.cpus.iter_mut().for_each(|cpu| cpu.domains.clear());
    assert!(
        show(&grew, Nanos::ZERO)
            .ends_with("\n1       -        -   10000.0        -   25.0       -    20.0        -\n")
    );
}

#[test]
fn each_number_has_a_name_of_its_own() {
    for (version, per_cpu) in [(15, 8 + 3 * 8 + 12), (17, 8 + 3 * 11 + 12)] {
        let rows = rows(&parsed(version));
        let names: std::collections::BTreeSet<&String> = rows.iter().map(|(name, _)| name).collect();
        assert_eq!((rows.len(), names.len()), (2 * per_cpu, 2 * per_cpu));
        let value = |name: &str| rows.iter().find(|(known, _)| known == name).map(|&(_, value)| value);
        assert_eq!(value("cpu1.waited_ns"), Some(17));
        assert_eq!(value("cpu0.domain0.busy.count"), Some(if version == 15 { 108 } else { 100 }));
        assert_eq!(value("cpu0.domain0.idle.imbalance"), (version == 15).then_some(103));
        assert_eq!(value("cpu1.domain0.wake_affine"), Some(if version == 15 { 134 } else { 143 }));
    }
}
