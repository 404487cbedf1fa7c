//! A process of several threads that has known registers and ends in a core file, the kernel's or a debugger's.

use std::{
    arch::asm,
    ffi::{c_int, c_void, CStr, CString},
    io, mem,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{run_between, RegFile};

/// How many threads it has.
pub const THREADS: usize = 4;
const STACK: usize = 1 << 16;

/// One thread's.
#[repr(C)]
struct Thread {
    load: RegFile,
    /// Never written: it does not come back.
    dump: RegFile,
    number: libc::pid_t,
    rest: Rest,
    stack: [[u64; 2]; STACK / 16],
}

/// What a thread does with its registers loaded: it counts itself, sends the signal if there is one, and waits.
#[repr(C)]
struct Rest {
    ready: *const AtomicU32,
    process: u64,
    thread: u64,
    signal: u64,
}

/// What the threads and the parent share.
#[repr(C)]
struct Shared {
    threads: [Thread; THREADS],
    ready: AtomicU32,
}

/// A child process whose threads stand still with their registers loaded.
#[derive(Debug)]
pub struct Dumped {
    child: libc::pid_t,
    shared: *mut Shared,
}

impl Dumped {
    /// Starts it, with these registers; it works in `directory`, and may write core files there.
    ///
    /// ```
    /// use fpu_hosted_test::real::{frames_are_linuxs, Classes, Dumped, RegFile};
    /// let load = std::array::from_fn(|n| RegFile::pattern(n as u64, Classes::detect()));
    /// if frames_are_linuxs().is_ok() {
    ///     let dumped = Dumped::start(&load, &std::env::temp_dir()).unwrap();
    ///     assert_eq!(dumped.threads()[0].unsigned_abs(), dumped.process());
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn start(load: &[RegFile; THREADS], directory: &Path) -> io::Result<Self> {
        let path = CString::new(directory.as_os_str().as_bytes())?;
        let (access, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        let len = mem::size_of::<Shared>();
        // SAFETY: new memory.
        let shared = unsafe { libc::mmap(ptr::null_mut(), len, access, kind, -1, 0) };
        if shared == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let shared = shared.cast::<Shared>();
        for (n, load) in load.iter().enumerate() {
            // SAFETY: ours, large enough, aligned to a page, and zero, which is legal for all of it.
            let thread = unsafe { &mut (*shared).threads[n] };
            (thread.load, thread.dump) = (load.clone(), load.clone());
        }
        // SAFETY: the child does only what is safe after fork: a few system calls, and assembly.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: the shared memory is the child's as well.
            0 => unsafe { run(shared, &path) },
            child => {
                let mut dumped = Self { child, shared };
                dumped.stopped().map(|()| dumped)
            }
        }
    }

    /// Its number.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.unsigned_abs()
    }

    /// The numbers of its threads, in the order of the register files.
    #[must_use]
    pub fn threads(&self) -> [i32; THREADS] {
        // SAFETY: the child wrote them before it stopped.
        std::array::from_fn(|n| unsafe { (*self.shared).threads[n].number })
    }

    fn stopped(&mut self) -> io::Result<()> {
        let mut status = 0;
        // SAFETY: our child; the status is a local.
        match unsafe { libc::waitpid(self.child, &mut status, libc::WUNTRACED) } {
            child if child == self.child && libc::WIFSTOPPED(status) => Ok(()),
            child if child == self.child => Err(io::Error::other(format!("status {status:#x}"))),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Ends it, so that the kernel dumps it. Returns whether it says that it did.
    #[must_use]
    pub fn abort(self) -> bool {
        let mut status = 0;
        // SAFETY: our child; the status is a local.
        unsafe {
            libc::kill(self.child, libc::SIGABRT);
            libc::kill(self.child, libc::SIGCONT);
            libc::waitpid(self.child, &mut status, 0);
        }
        libc::WIFSIGNALED(status) && libc::WCOREDUMP(status)
    }
}

impl Drop for Dumped {
    fn drop(&mut self) {
        // SAFETY: our child, and memory that only it shares.
        unsafe {
            libc::kill(self.child, libc::SIGKILL);
            libc::waitpid(self.child, ptr::null_mut(), 0);
            libc::munmap(self.shared.cast(), mem::size_of::<Shared>());
        }
    }
}

/// The child.
unsafe fn run(shared: *mut Shared, directory: &CStr) -> ! {
    // SAFETY: system calls of the child's own, and threads on stacks of their own.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::signal(libc::SIGABRT, libc::SIG_DFL);
        let all = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
        if libc::setrlimit(libc::RLIMIT_CORE, &all) != 0 || libc::chdir(directory.as_ptr()) != 0 {
            libc::_exit(1);
        }
        let process = libc::getpid();
        let ready: *const AtomicU32 = ptr::addr_of!((*shared).ready);
        for n in (0..THREADS).rev() {
            let thread = ptr::addr_of_mut!((*shared).threads[n]);
            let signal = if n == 0 { libc::SIGSTOP as u64 } else { 0 };
            (*thread).rest =
                Rest { ready, process: process as u64, thread: process as u64, signal };
            if n == 0 {
                (*thread).number = process;
                break;
            }
            let kind = libc::CLONE_VM
                | libc::CLONE_FS
                | libc::CLONE_FILES
                | libc::CLONE_SIGHAND
                | libc::CLONE_THREAD
                | libc::CLONE_SYSVSEM;
            let top = ptr::addr_of_mut!((*thread).stack).add(1);
            // Such a thread shares this one's thread-local memory, and uses none.
            (*thread).number = libc::clone(stand, top.cast(), kind, thread.cast());
            if (*thread).number < 0 {
                libc::_exit(1);
            }
        }
        while (*ready).load(Ordering::Acquire) < THREADS as u32 - 1 {
            libc::sched_yield();
        }
        stand(ptr::addr_of_mut!((*shared).threads[0]).cast());
        libc::_exit(1)
    }
}

extern "C" fn stand(thread: *mut c_void) -> c_int {
    let thread = thread.cast::<Thread>();
    // SAFETY: C31: classes of this CPU. C33: system calls, and integers only.
    unsafe {
        let rest = ptr::addr_of_mut!((*thread).rest).cast();
        run_between(&(*thread).load, wait, rest, &mut (*thread).dump);
    }
    1
}

unsafe extern "C" fn wait(rest: *mut c_void) {
    let rest = rest.cast::<Rest>();
    // SAFETY: system calls that touch no memory of this program; only integer registers change.
    unsafe {
        asm!(
            "lock inc dword ptr [{ready}]",
            "test edx, edx",
            "jz 2f",
            "syscall",
            "2: mov eax, {pause}",
            "syscall",
            "jmp 2b",
            pause = const libc::SYS_pause,
            ready = in(reg) (*rest).ready,
            in("rax") libc::SYS_tgkill as u64,
            in("rdi") (*rest).process,
            in("rsi") (*rest).thread,
            in("rdx") (*rest).signal,
            options(noreturn),
        );
    }
}
