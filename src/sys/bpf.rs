//! BPF objects, programs and maps, through libbpf.

use super::check;
use super::file;
use super::process::{self, pipe};
use crate::error::{Context, Error, Result};
use crate::task::{Nanos, Tid};
use libbpf_sys as bpf;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};

/// The bytes of an ELF object, aligned as libelf requires.
#[repr(C, align(8))]
pub struct ObjectBytes<T: ?Sized>(pub T);

/// The size of the buffer for the verifier's log of a program that it rejects.
const LOG_SIZE: usize = 64 * 1024;

/// A BPF object, which is opened, set up and then loaded. Loaded programs and maps are taken out by
/// name. They outlive the object; dropping it frees only the data of libbpf.
pub struct BpfObject {
    raw: NonNull<bpf::bpf_object>,
    /// The kernel writes to it during `load`, so it must not move, and must outlive `raw`.
    log: Box<[u8]>,
}

impl BpfObject {
    pub fn open(elf: &'static ObjectBytes<[u8]>, name: &CStr) -> Result<BpfObject> {
        let mut log = vec![0u8; LOG_SIZE].into_boxed_slice();
        let mut options = bpf::bpf_object_open_opts {
            sz: size_of::<bpf::bpf_object_open_opts>() as _,
            object_name: name.as_ptr(),
            kernel_log_buf: log.as_mut_ptr().cast(),
            kernel_log_size: log.len() as _,
            ..Default::default()
        };
        // With level 0, libbpf requests the log only if the kernel rejects a program.
        options.kernel_log_level = 0;
        // SAFETY: sets a function pointer of libbpf. Without a function, libbpf prints nothing; it
        // still returns its errors.
        unsafe { bpf::libbpf_set_print(None) };
        // SAFETY: `elf` is 'static, `options` outlives the call, and the log that it points to
        // lives as long as the object.
        let raw = unsafe { bpf::bpf_object__open_mem(elf.0.as_ptr().cast(), elf.0.len() as _, &options) };
        let raw = NonNull::new(raw).ok_or_else(io::Error::last_os_error).context("open the BPF object")?;
        Ok(BpfObject { raw, log })
    }

    /// Sets whether `load` loads a program.
    pub(crate) fn want_program(&mut self, name: &CStr, wanted: bool) -> Result<()> {
        let program = self.program(name)?;
        // SAFETY: `program` belongs to this object. If that is already loaded, the call returns an
        // error.
        let result = unsafe { bpf::bpf_program__set_autoload(program.as_ptr(), wanted) };
        negative(result).map(drop).context(format_args!("choose {}", shown(name)))
    }

    pub(crate) fn want_map(&mut self, name: &CStr, wanted: bool) -> Result<()> {
        let map = self.map(name)?;
        // SAFETY: `map` belongs to this object.
        let result = unsafe { bpf::bpf_map__set_autocreate(map.as_ptr(), wanted) };
        negative(result).map(drop).context(format_args!("choose {}", shown(name)))
    }

    pub(crate) fn set_entries(&mut self, name: &CStr, entries: u32) -> Result<()> {
        let map = self.map(name)?;
        // SAFETY: `map` belongs to this object.
        let result = unsafe { bpf::bpf_map__set_max_entries(map.as_ptr(), entries) };
        negative(result).map(drop).context(format_args!("size {}", shown(name)))
    }

    /// Sets the size of a map's values.
    pub(crate) fn set_value_size(&mut self, name: &CStr, size: u32) -> Result<()> {
        let map = self.map(name)?;
        // SAFETY: `map` belongs to this object.
        let result = unsafe { bpf::bpf_map__set_value_size(map.as_ptr(), size) };
        negative(result).map(drop).context(format_args!("size {}", shown(name)))
    }

    /// Sets the programs' constants, which are one struct.
    pub(crate) fn set_constants<T: Copy>(&mut self, constants: &T) -> Result<()> {
        let map = self.map(c".rodata")?;
        let mut size = 0;
        // SAFETY: `map` belongs to this object; libbpf gives out its own copy of the initial value.
        let value = unsafe { bpf::bpf_map__initial_value(map.as_ptr(), &mut size) };
        if value.is_null() || (size as usize) < size_of::<T>() {
            return Err(Error::new("the BPF object's constants are not what the program expects"));
        }
        // SAFETY: `value` has `size` bytes, enough for a T, which is Copy and so holds no owner.
        unsafe {
            ptr::copy_nonoverlapping(ptr::from_ref(constants).cast::<u8>(), value.cast(), size_of::<T>());
        };
        Ok(())
    }

    /// Loads the programs into the kernel. The error includes the verifier's reason, if there is
    /// one.
    pub fn load(&mut self) -> Result<()> {
        // SAFETY: the object is open; loading twice is an error that libbpf returns.
        let result = unsafe { bpf::bpf_object__load(self.raw.as_ptr()) };
        negative(result).map(drop).map_err(|e| {
            let error = Error::io("load the BPF programs", &e);
            match verdict(&self.log) {
                Some(reason) => error.with_note(&reason),
                None => error,
            }
        })
    }

    /// Loads the programs, and returns the verifier's statistics for each of these.
    pub(crate) fn load_with_figures(&mut self, names: &[&CStr]) -> Result<Vec<String>> {
        /// BPF_LOG_STATS: the log holds only statistics.
        const FIGURES: u32 = 4;
        let mut logs = vec![vec![0u8; 64 * 1024]; names.len()];
        for (name, log) in names.iter().zip(&mut logs) {
            let program = self.program(name)?;
            // SAFETY: `program` belongs to this object, which loads once, below, and `logs`
            // outlives that.
            let result = unsafe {
                bpf::bpf_program__set_log_level(program.as_ptr(), FIGURES);
                bpf::bpf_program__set_log_buf(program.as_ptr(), log.as_mut_ptr().cast(), log.len() as _)
            };
            negative(result).context(format_args!("ask about {}", shown(name)))?;
        }
        self.load()?;
        Ok(logs.iter().map(|log| figures(log)).collect())
    }

    pub fn take_program(&self, name: &CStr) -> Result<Program> {
        let program = self.program(name)?;
        // SAFETY: `program` belongs to this object.
        let fd = negative(unsafe { bpf::bpf_program__fd(program.as_ptr()) })
            .context(format_args!("take {}", shown(name)))?;
        Ok(Program { fd: duplicate(fd).context(format_args!("take {}", shown(name)))? })
    }

    pub(crate) fn take_map(&self, name: &CStr) -> Result<OwnedFd> {
        let map = self.map(name)?;
        // SAFETY: `map` belongs to this object.
        let fd = negative(unsafe { bpf::bpf_map__fd(map.as_ptr()) })
            .context(format_args!("take {}", shown(name)))?;
        duplicate(fd).context(format_args!("take {}", shown(name)))
    }

    fn program(&self, name: &CStr) -> Result<NonNull<bpf::bpf_program>> {
        // SAFETY: the object is open and the name ends with a NUL.
        let found = unsafe { bpf::bpf_object__find_program_by_name(self.raw.as_ptr(), name.as_ptr()) };
        NonNull::new(found)
            .ok_or_else(|| Error::new(format!("the BPF object has no program {}", shown(name))))
    }

    fn map(&self, name: &CStr) -> Result<NonNull<bpf::bpf_map>> {
        // SAFETY: the object is open and the name ends with a NUL.
        let found = unsafe { bpf::bpf_object__find_map_by_name(self.raw.as_ptr(), name.as_ptr()) };
        NonNull::new(found).ok_or_else(|| Error::new(format!("the BPF object has no map {}", shown(name))))
    }
}

impl Drop for BpfObject {
    fn drop(&mut self) {
        // SAFETY: the object was opened by `open` and is closed once, here.
        unsafe { bpf::bpf_object__close(self.raw.as_ptr()) };
    }
}

/// A loaded program.
pub struct Program {
    fd: OwnedFd,
}

/// The runs of a program that the kernel counted while `count_runs` was in force.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runs {
    pub count: u64,
    pub time_ns: u64,
}

impl Program {
    /// Makes an iterator of the program. `bpftool link` lists its link.
    pub fn link_iterator(&self) -> io::Result<BpfIter> {
        // SAFETY: no options are passed.
        let fd = unsafe { bpf::bpf_link_create(self.fd.as_raw_fd(), 0, bpf::BPF_TRACE_ITER, ptr::null()) };
        // SAFETY: the call made this descriptor for us.
        negative(fd).map(|fd| BpfIter { link: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Makes an iterator of a program that the kernel calls for each element of `map`.
    pub(crate) fn link_iterator_over(&self, map: BorrowedFd) -> io::Result<BpfIter> {
        let mut over = bpf::bpf_iter_link_info::default();
        over.map.map_fd = map.as_raw_fd() as u32;
        let mut options = bpf::bpf_link_create_opts {
            sz: size_of::<bpf::bpf_link_create_opts>() as _,
            ..Default::default()
        };
        options.iter_info = &mut over;
        options.iter_info_len = size_of::<bpf::bpf_iter_link_info>() as u32;
        // SAFETY: `options`, and what it points to, outlive the call.
        let fd = unsafe { bpf::bpf_link_create(self.fd.as_raw_fd(), 0, bpf::BPF_TRACE_ITER, &options) };
        // SAFETY: the call made this descriptor for us.
        negative(fd).map(|fd| BpfIter { link: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Attaches the program to its scheduler event, until the returned descriptor is dropped.
    /// Attaching and detaching block until an RCU grace period is over, which a hog can delay
    /// without limit.
    pub fn attach(&self) -> io::Result<OwnedFd> {
        // SAFETY: the name may be NULL, because the program knows its event.
        let fd = unsafe { bpf::bpf_raw_tracepoint_open(ptr::null(), self.fd.as_raw_fd()) };
        // SAFETY: the call made this descriptor for us.
        negative(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Runs the program once, on this CPU, with these arguments, and returns its result.
    pub(crate) fn run(&self, arguments: &[u64]) -> io::Result<u32> {
        let mut options = bpf::bpf_test_run_opts {
            sz: size_of::<bpf::bpf_test_run_opts>() as _,
            ctx_in: arguments.as_ptr().cast(),
            ctx_size_in: size_of_val(arguments) as u32,
            ..Default::default()
        };
        // SAFETY: `options` passes `arguments`, which outlive the call, and no other buffers.
        negative(unsafe { bpf::bpf_prog_test_run_opts(self.fd.as_raw_fd(), &mut options) })?;
        Ok(options.retval)
    }

    pub fn runs(&self) -> io::Result<Runs> {
        let mut info = bpf::bpf_prog_info::default();
        let mut size = size_of::<bpf::bpf_prog_info>() as u32;
        // SAFETY: `info` is `size` bytes long and asks for none of the arrays that it could point
        // to.
        negative(unsafe { bpf::bpf_prog_get_info_by_fd(self.fd.as_raw_fd(), &mut info, &mut size) })?;
        Ok(Runs { count: info.run_cnt, time_ns: info.run_time_ns })
    }
}

/// Makes the kernel count and time the runs of all BPF programs, until the returned descriptor is
/// dropped.
pub fn count_runs() -> io::Result<OwnedFd> {
    // SAFETY: takes a number and returns a descriptor.
    let fd = negative(unsafe { bpf::bpf_enable_stats(bpf::BPF_STATS_RUN_TIME) })?;
    // SAFETY: the call made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Returns whether the kernel has task storage for tracing programs (from 5.12 on).
pub(crate) fn has_task_storage() -> bool {
    // SAFETY: both probes take numbers only.
    unsafe {
        bpf::libbpf_probe_bpf_map_type(bpf::BPF_MAP_TYPE_TASK_STORAGE, ptr::null()) == 1
            && bpf::libbpf_probe_bpf_helper(
                bpf::BPF_PROG_TYPE_TRACING,
                bpf::BPF_FUNC_task_storage_get,
                ptr::null(),
            ) == 1
    }
}

/// A process that attaches programs to their events and keeps them attached. Attaching and
/// detaching wait for RCU, and so for every CPU, which a hog can delay without limit. That wait
/// must delay neither a scan nor the exit of stalld. The process ends, which detaches the programs,
/// when this is dropped or stalld dies.
pub(crate) struct AttachHelper {
    pid: Tid,
    /// The writing end of a pipe. Closing it ends the process.
    life: Option<File>,
    /// The reading end of a pipe. The process writes its result once. End of file means that the
    /// process has died.
    verdict: Option<File>,
}

/// The time limit for the end of the process.
const DETACHING: Nanos = Nanos::from_millis(100);

impl AttachHelper {
    pub(crate) fn attach(programs: &[Program]) -> io::Result<AttachHelper> {
        let (life, our_life) = pipe()?;
        let (our_verdict, verdict) = pipe()?;
        file::never_wait(&our_verdict)?;
        let fds: Vec<i32> = programs.iter().map(|program| program.fd.as_raw_fd()).collect();
        let (life, verdict) = (life.as_raw_fd(), verdict.as_raw_fd());
        let mut keep = fds.clone();
        keep.extend([life, verdict]);
        // SAFETY: the child makes system calls only.
        let pid = unsafe { process::child(c"stall-events", &keep, || hold(&fds, life, verdict)) }?;
        Ok(AttachHelper { pid, life: Some(our_life), verdict: Some(our_verdict) })
    }

    pub(crate) fn pid(&self) -> Tid {
        self.pid
    }

    /// Returns the result of attaching when it is known, and later an error if the process has
    /// died; each once. Never blocks.
    pub(crate) fn poll(&mut self) -> Option<io::Result<()>> {
        let mut errno = [0; size_of::<i32>()];
        let outcome = match self.verdict.as_ref()?.read(&mut errno) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
            Ok(read) if read == errno.len() => match i32::from_ne_bytes(errno) {
                0 => return Some(Ok(())),
                errno => Err(io::Error::from_raw_os_error(errno)),
            },
            _ => Err(io::Error::other("the process that is attached to them has died")),
        };
        self.verdict = None;
        Some(outcome)
    }
}

impl Drop for AttachHelper {
    fn drop(&mut self) {
        drop(self.life.take());
        // If detaching takes longer, the process becomes a zombie until stalld ends.
        process::reap(self.pid, DETACHING);
    }
}

/// Runs in the process of an `AttachHelper`: no allocation, no lock, no unwinding.
fn hold(programs: &[i32], life: i32, verdict: i32) {
    let mut errno = 0i32;
    for &program in programs {
        // SAFETY: the name may be NULL, because the program knows its event.
        if unsafe { bpf::bpf_raw_tracepoint_open(ptr::null(), program) } < 0 {
            errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL);
            break;
        }
    }
    // SAFETY: reads and writes memory of our own. No data comes through the pipe `life`, which is
    // closed when the parent ends.
    unsafe {
        // The standard descriptors would keep a terminal or a pipe of another process open.
        (0..3).for_each(|fd| _ = libc::close(fd));
        libc::write(verdict, ptr::from_ref(&errno).cast(), size_of::<i32>());
        let mut byte = 0u8;
        while errno == 0 && libc::read(life, ptr::from_mut(&mut byte).cast(), 1) == -1 {}
    }
}

/// A linked iterator program.
pub struct BpfIter {
    link: OwnedFd,
}

impl BpfIter {
    /// Starts a walk. The caller reads the returned descriptor to its end.
    pub fn start(&self) -> io::Result<OwnedFd> {
        // SAFETY: takes a descriptor and returns one.
        let fd = negative(unsafe { bpf::bpf_iter_create(self.link.as_raw_fd()) })?;
        // SAFETY: the call made this descriptor for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// Converts a result of libbpf, which is a negative errno on failure.
pub(super) fn negative(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}

fn duplicate(fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: duplicates a descriptor that libbpf owns and keeps.
    let copy = check(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) })?;
    // SAFETY: the copy is ours.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Returns the verifier's reason, which is the last line of its log before the statistics.
fn verdict(log: &[u8]) -> Option<String> {
    let text = log.split(|&b| b == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let line = text.lines().rev().find(|line| !line.trim().is_empty() && !line.starts_with("processed "))?;
    Some(line.trim().to_string())
}

/// Returns the verifier's statistics, which are one or three lines of names and numbers.
fn figures(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log.split(|&b| b == 0).next().unwrap_or_default());
    let after = |name: &str| {
        let mut words = text.split_whitespace().skip_while(|word| *word != name);
        words.nth(1).unwrap_or("?").to_string()
    };
    let [insns, total, peak, time] = ["processed", "total_states", "peak_states", "time"].map(after);
    format!("{insns} insns, {total} states, {peak} at most, {time} us")
}

fn shown(name: &CStr) -> std::borrow::Cow<'_, str> {
    name.to_string_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_reason_is_the_last_line_before_its_statistics() {
        let log = b"0: (85) call bpf_probe_read#4\nunknown func bpf_probe_read#4\nprocessed 1 insns (limit 1000000)\n\n\0\0";
        assert_eq!(verdict(log).as_deref(), Some("unknown func bpf_probe_read#4"));
        assert_eq!(verdict(&[0; 16]), None);
    }

    #[test]
    fn the_verifiers_figures_are_found_by_their_names() {
        let log = b"verification time 95 usec\nstack depth 24+0\nprocessed 211 insns (limit 1000000) \
                    max_states_per_insn 1 total_states 19 peak_states 17 mark_read 3\n\0";
        assert_eq!(figures(log), "211 insns, 19 states, 17 at most, 95 us");
        assert_eq!(figures(&[0; 16]), "? insns, ? states, ? at most, ? us");
    }
}
