//! Notices when CPUs come online, of which no walk knows the queue yet.

use crate::task::Nanos;
use std::fs::File;
use std::os::unix::fs::FileExt;

const LIST: &str = "/sys/devices/system/cpu/online";

/// The time between two readings of the list.
const INTERVAL: Nanos = Nanos::from_secs(1);

/// Enough for the list of a host whose CPUs are in some order.
const SIZE: usize = 512;

/// The list of the online CPUs. The file is opened once, because opening it takes a lock of sysfs
/// that a starving task may hold.
pub(super) struct OnlineCpus {
    list: File,
    text: [u8; SIZE],
    read_at: Nanos,
}

impl OnlineCpus {
    /// Returns `None` if there is no sysfs.
    pub(super) fn open(now: Nanos) -> Option<OnlineCpus> {
        let mut online = OnlineCpus { list: File::open(LIST).ok()?, text: [0; SIZE], read_at: now };
        online.read();
        Some(online)
    }

    /// Returns whether the list has changed since the last reading. Reads it at most once in an
    /// interval.
    pub(super) fn have_changed(&mut self, now: Nanos) -> bool {
        if now < self.read_at + INTERVAL {
            return false;
        }
        self.read_at = now;
        self.read()
    }

    /// Reads the list, and returns whether it has changed.
    fn read(&mut self) -> bool {
        let mut text = [0; SIZE];
        self.list.read_at(&mut text, 0).is_ok() && std::mem::replace(&mut self.text, text) != text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_change_is_noticed_once_and_within_an_interval() {
        let path = std::env::temp_dir().join(format!("stalld-online-{}", std::process::id()));
        let mut file = File::create(&path).unwrap();
        file.write_all(b"0-1\n").unwrap();
        let mut online =
            OnlineCpus { list: File::open(&path).unwrap(), text: [0; SIZE], read_at: Nanos::ZERO };
        std::fs::remove_file(&path).unwrap();
        assert!(online.read());
        let ms = Nanos::from_millis;
        assert!(!online.have_changed(ms(1000)));
        file.write_at(b"0-3\n", 0).unwrap();
        assert!(!online.have_changed(ms(1999)));
        assert!(online.have_changed(ms(2000)));
        assert!(!online.have_changed(ms(3000)));
    }

    #[test]
    fn the_list_of_this_host_does_not_change_by_itself() {
        let mut online = OnlineCpus::open(Nanos::ZERO).unwrap();
        assert!(online.text.starts_with(b"0"), "{:?}", online.text);
        assert!(!online.have_changed(INTERVAL));
    }
}
