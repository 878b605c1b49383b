//! The size of stalld on the disk, and the kernel memory of the maps of its BPF programs.

use crate::figures::{Effort, Line, Row, grouped};
use crate::process;
use crate::upkeep::Daemon;
use rig::Stalld;
use stalld::error::{Context, Error, Result};
use stalld::task::Tid;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// The bound of each binary. The static one contains the C library.
const MAX_BYTES: u64 = 2_200_000;

/// Bound on the maps of a backend, for all CPUs and all threads.
const MAPS_KIB: u64 = 1024;

pub fn rows() -> Vec<Row> {
    let mut rows = vec![Row::new("size of the binary", binaries)];
    for backend in ["task_iter", "queue_track"] {
        rows.push(Row::new(maps_name(backend), move |_| maps(backend)));
    }
    rows
}

fn binaries(_: &Effort) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (kind, path) in [("dynamic", Stalld::path()), ("static", "target/static/stalld")] {
        // `make static` may not have been run.
        if !Path::new(path).exists() {
            continue;
        }
        let size = fs::metadata(path).context(format!("read {path}"))?.len();
        lines.push(Line::new(
            format!("size of the binary, {kind}"),
            format!("{} bytes", grouped(size as usize)),
            format!("{} bytes", grouped(MAX_BYTES as usize)),
            size <= MAX_BYTES,
        ));
    }
    Ok(lines)
}

fn maps_name(backend: &str) -> String {
    format!("memory of maps, {backend}")
}

fn maps(backend: &str) -> Result<Vec<Line>> {
    let daemon = Daemon::start(&["-b", backend])?;
    let mut processes = process::descendants(daemon.pid())?;
    processes.push(daemon.pid());
    // By their ids, because processes share maps.
    let mut maps = HashMap::new();
    for pid in processes {
        for descriptor in process::descriptors(pid)? {
            let field = |key: &str| descriptor.get(key)?.parse::<u64>().ok();
            if let (Some(id), Some(bytes)) = (field("map_id"), field("memlock")) {
                maps.insert(id, bytes);
            }
        }
    }
    let mapped = mapped(daemon.pid())?;
    if mapped == 0 {
        return Err(Error::new("stalld has no map in its memory"));
    }
    let kib = (maps.values().sum::<u64>() + mapped).div_ceil(1024);
    Ok(vec![Line::new(
        maps_name(backend),
        format!(
            "{kib} KiB in {} maps, with {} threads on the machine",
            maps.len(),
            process::threads_of_all()
        ),
        format!("{MAPS_KIB} KiB"),
        kib <= MAPS_KIB,
    )])
}

/// Returns the bytes of the maps that are in the memory of a process. It has closed their
/// descriptors.
fn mapped(pid: Tid) -> Result<u64> {
    let path = format!("/proc/{pid}/maps");
    let text = fs::read_to_string(&path).context(format!("read {path}"))?;
    let length = |line: &str| {
        let (from, to) = line.split(' ').next()?.split_once('-')?;
        Some(u64::from_str_radix(to, 16).ok()? - u64::from_str_radix(from, 16).ok()?)
    };
    Ok(text.lines().filter(|line| line.ends_with("bpf-map")).filter_map(length).sum())
}
