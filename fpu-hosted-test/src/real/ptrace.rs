//! A child process whose registers its debugger reads and writes through the host's kernel.

use std::{ffi::c_void, io, mem, ptr};

use super::{
    child::Child,
    compat::{call_32, Compat},
    run_between,
    signal::raise,
    RegFile,
};

/// The type of the FXSAVE registers.
pub const NT_PRFPREG: i32 = 2;
/// The type of all of XSAVE's.
pub const NT_X86_XSTATE: i32 = 0x202;
/// The type of the FXSAVE registers of a 32-bit program, of which [`NT_PRFPREG`] are FSAVE's.
pub const NT_PRXFPREG: i32 = 0x46E6_2B7F;

/// The memory that the two processes share.
#[repr(C)]
struct Shared {
    load: RegFile,
    dump: RegFile,
}

/// A child that loads registers, stops, dumps them when it goes on, and begins again.
#[derive(Debug)]
pub struct Tracee {
    child: Child,
    shared: *mut Shared,
}

fn last<T>(what: &str) -> Result<T, String> {
    Err(format!("{what}: {}", io::Error::last_os_error()))
}

impl Tracee {
    /// Starts the child, which stops with `load` in its registers.
    ///
    /// ```
    /// use fpu_hosted_test::real::{frames_are_linuxs, Classes, RegFile, Tracee};
    /// let load = RegFile::pattern(1, Classes::detect());
    /// match frames_are_linuxs().map_err(String::from).and_then(|()| Tracee::start(&load)) {
    ///     Ok(mut tracee) => assert_eq!(load.first_difference(&tracee.go(&load)), None),
    ///     Err(why) => println!("{why}"),
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The system lets no process be traced: the reason for a skip.
    pub fn start(load: &RegFile) -> Result<Self, String> {
        Self::begin(load, None)
    }

    /// As [`start`](Self::start), with the child in 32-bit code, so that its register sets are those of a 32-bit
    /// program.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    pub fn start_32(load: &RegFile, compat: &Compat) -> Result<Self, String> {
        Self::begin(load, Some(compat))
    }

    fn begin(load: &RegFile, compat: Option<&Compat>) -> Result<Self, String> {
        let (access, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: new memory.
        let shared =
            unsafe { libc::mmap(ptr::null_mut(), mem::size_of::<Shared>(), access, kind, -1, 0) };
        if shared == libc::MAP_FAILED {
            return last("mmap");
        }
        let shared = shared.cast::<Shared>();
        // SAFETY: ours, large enough, and aligned to a page.
        unsafe { shared.write(Shared { load: load.clone(), dump: load.clone() }) };
        // SAFETY: the child does only what is safe after fork: a few system calls, and assembly.
        match unsafe { libc::fork() } {
            -1 => last("fork"),
            // SAFETY: the shared memory is the child's as well.
            0 => unsafe { run(shared, compat) },
            child => {
                let mut tracee = Self { child: Child::of(child), shared };
                tracee.wait()?;
                tracee.takes_whole_sets(compat.is_some())?;
                Ok(tracee)
            }
        }
    }

    /// Linux before 5.14 takes a part of the FXSAVE registers, and masks what MXCSR does not have instead of refusing it:
    /// no kernel to compare with.
    fn takes_whole_sets(&mut self, narrow: bool) -> Result<(), String> {
        let kind = if narrow { NT_PRXFPREG } else { NT_PRFPREG };
        let mut set = [0; 512];
        let len = self.get(kind, &mut set).map_err(|why| format!("no FXSAVE registers: {why}"))?;
        match self.set(kind, &set[..len / 2]) {
            Ok(_) => Err("this kernel takes parts of a register set, as Linux before 5.14".into()),
            Err(_) => Ok(()),
        }
    }

    fn wait(&mut self) -> Result<(), String> {
        match self.child.wait(0).map_err(|why| format!("waitpid: {why}"))? {
            status if libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGSTOP => Ok(()),
            status if libc::WIFEXITED(status) => Err("the system lets no child be traced".into()),
            status => Err(format!("the child ended or stopped with status {status:#x}")),
        }
    }

    /// Lets the child go on with the registers as they are, until it has stopped again with `next` in them. Returns the
    /// registers that the child found.
    ///
    /// # Panics
    ///
    /// If the child does not stop again.
    #[must_use]
    pub fn go(&mut self, next: &RegFile) -> RegFile {
        // SAFETY: the child stands still.
        unsafe { (*self.shared).load = next.clone() };
        // SAFETY: our tracee, which stands still.
        let gone = unsafe { libc::ptrace(libc::PTRACE_CONT, self.child.number(), 0usize, 0usize) };
        assert_eq!(gone, 0, "PTRACE_CONT: {}", io::Error::last_os_error());
        self.wait().unwrap_or_else(|why| panic!("{why}"));
        // SAFETY: it stands still again.
        unsafe { (*self.shared).dump.clone() }
    }

    fn request(&self, request: u32, kind: i32, base: *mut c_void, len: usize) -> io::Result<usize> {
        let mut vector = libc::iovec { iov_base: base, iov_len: len };
        // SAFETY: our tracee, which stands still; the vector describes memory of the caller's.
        let done = unsafe {
            libc::ptrace(request, self.child.number(), kind as usize, ptr::addr_of_mut!(vector))
        };
        match done {
            0 => Ok(vector.iov_len),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Reads a register set. Returns how many bytes of `out` it has.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    pub fn get(&self, kind: i32, out: &mut [u8]) -> io::Result<usize> {
        self.request(libc::PTRACE_GETREGSET, kind, out.as_mut_ptr().cast(), out.len())
    }

    /// Sets a register set.
    ///
    /// # Errors
    ///
    /// The kernel's error: it refuses the bytes.
    pub fn set(&mut self, kind: i32, bytes: &[u8]) -> io::Result<usize> {
        // The kernel only reads.
        let base = bytes.as_ptr().cast_mut().cast();
        self.request(libc::PTRACE_SETREGSET, kind, base, bytes.len())
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        // SAFETY: our mapping, which this value does not look at any more; the child has its own of the same memory.
        unsafe { libc::munmap(self.shared.cast(), mem::size_of::<Shared>()) };
    }
}

/// The child.
unsafe fn run(shared: *mut Shared, compat: Option<&Compat>) -> ! {
    // SAFETY: system calls of the child's own.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::ptrace(libc::PTRACE_TRACEME, 0, 0usize, 0usize) != 0 {
            libc::_exit(1);
        }
        let this = libc::getpid();
        let mut target = [this as u64, this as u64, libc::SIGSTOP as u64];
        loop {
            let (load, dump) = (&(*shared).load, &mut (*shared).dump);
            // The parent reads and writes only while this process stands still, within the call.
            match compat {
                None => run_between(load, raise, ptr::addr_of_mut!(target).cast(), dump),
                Some(compat) => {
                    let mut target = compat.raise(this, libc::SIGSTOP);
                    run_between(load, call_32, ptr::addr_of_mut!(target).cast(), dump);
                }
            }
        }
    }
}
