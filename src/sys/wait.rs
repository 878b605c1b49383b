//! waitid(2) for all children.

use super::check;
use std::io;

/// Returns whether a child has ended. The child stays a zombie, for the code that started it to
/// wait for.
pub fn a_child_has_ended() -> io::Result<bool> {
    // SAFETY: a siginfo_t is plain numbers, of which all-zero is the state "no child".
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is a siginfo_t that outlives the call.
    check(unsafe { libc::waitid(libc::P_ALL, 0, &mut info, flags) })?;
    // SAFETY: waitid fills the fields of SIGCHLD, to which si_pid belongs, or leaves it all zero.
    Ok(unsafe { info.si_pid() } != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_child_that_ended_is_seen_and_left_to_be_waited_for() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        drop(child.stdin.take());
        while !a_child_has_ended().unwrap() {
            std::thread::yield_now();
        }
        assert!(child.wait().unwrap().success());
    }
}
