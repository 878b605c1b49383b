//! A list of CPUs as people write it. The first byte chooses the number of CPUs.

use super::{choice, is_one_line};
use stalld::cpus::CpuSet;
use stalld::task::Escaped;

pub fn run(input: &[u8]) {
    let (count, list) = choice(input);
    let configured = 1 + u32::from(count) * 9;
    let Ok(list) = std::str::from_utf8(list) else { return };
    match CpuSet::parse(list, configured) {
        Ok(set) => {
            assert!(!set.is_empty() && set.iter().all(|cpu| cpu.0 < configured), "{set:?}");
            assert_eq!(set.iter().count(), set.len());
            let shown = set.to_string();
            assert_eq!(CpuSet::parse(&shown, configured).as_ref(), Ok(&set), "{shown}");
            assert_eq!(CpuSet::parse(&format!(" {shown} , {shown}"), configured), Ok(set));
        }
        // The reason contains the text of the user. The caller escapes it.
        Err(reason) => assert!(is_one_line(&Escaped(reason.as_bytes()).to_string()), "{reason:?}"),
    }
}
