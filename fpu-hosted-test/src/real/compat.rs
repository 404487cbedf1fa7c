//! Signals of 32-bit programs, whose frames have FSAVE's image in front.
//!
//! This is a 64-bit program. It puts a few instructions of 32-bit code below 4 GiB, goes there by a far return, has the
//! kernel's 32-bit system call send the signal, and returns in the same way. The handler is 32-bit code as well,
//! registered by a 32-bit system call, which makes the kernel write a 32-bit frame.

use std::{arch::global_asm, ffi::c_void, ptr};

use super::{
    run_between,
    signal::{finish, with_exchange},
    Delivered, RegFile, ROOM,
};

// Within the low memory. Code and data have pages of their own.
const HANDLER: usize = 0x100;
const RESTORER: usize = 0x180;
const BACK: usize = 0x1C0;
const SAVED_RSP: usize = 0x1000;
const LEN: usize = 0x1008;
const SWAP: usize = 0x100C;
const ACTION: usize = 0x1040;
/// 112 bytes of FSAVE's come first; what follows is aligned to 64.
const OUT: usize = 0x2010;
const IN: usize = OUT + ROOM + 256 - ROOM % 256;
const STACK_TOP: usize = 0x40000;
const SIZE: usize = STACK_TOP;
/// `uc_mcontext.fpstate` of a 32-bit `ucontext`: five words, then nineteen.
const FPSTATE: usize = 20 + 76;

global_asm!(
    // rdi = `Target`. Keeps what the ABI says, and changes no register that is not an integer's.
    ".pushsection .text.fpu_real_compat,\"ax\",@progbits",
    ".p2align 4",
    ".globl fpu_real_compat",
    ".type fpu_real_compat,@function",
    "fpu_real_compat:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov rbp, [rdi]",
    "mov rax, [rdi + 8]",
    "mov rbx, [rdi + 16]",
    "mov rcx, [rdi + 24]",
    "mov rdx, [rdi + 32]",
    "mov rsi, [rdi + 40]",
    "lea r8, [rip + 2f]",
    "push r8",
    "mov [rbp + {saved_rsp}], rsp",
    "lea rsp, [rbp + {stack_top}]",
    "push 0x23",
    "push rbp",
    "retfq",
    "2: pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    ".size fpu_real_compat, . - fpu_real_compat",
    ".popsection",
    // What is copied below 4 GiB; EBP is its beginning.
    ".pushsection .rodata.fpu_real_compat,\"a\",@progbits",
    ".globl fpu_real_compat_code",
    "fpu_real_compat_code:",
    ".code32",
    "int 0x80",
    "push 0x33",
    "lea ecx, [ebp + {back}]",
    "push ecx",
    "retf",
    ".org fpu_real_compat_code + {handler}",
    "cld",
    "mov eax, [esp + 12]",
    "mov esi, [eax + {fpstate}]",
    "lea edi, [ebp + {out}]",
    "mov ecx, [ebp + {len}]",
    "rep movsb",
    "mov ecx, [ebp + {swap}]",
    "test ecx, ecx",
    "jz 3f",
    "mov [eax + {fpstate}], ecx",
    "3: ret",
    ".org fpu_real_compat_code + {restorer}",
    "mov eax, 173",
    "int 0x80",
    ".org fpu_real_compat_code + {back}",
    ".code64",
    "mov ebp, ebp",
    "mov rsp, [rbp + {saved_rsp}]",
    "ret",
    ".globl fpu_real_compat_end",
    "fpu_real_compat_end:",
    ".popsection",
    saved_rsp = const SAVED_RSP,
    stack_top = const STACK_TOP,
    handler = const HANDLER,
    restorer = const RESTORER,
    back = const BACK,
    out = const OUT,
    len = const LEN,
    swap = const SWAP,
    fpstate = const FPSTATE,
);

extern "C" {
    #[link_name = "fpu_real_compat"]
    pub(super) fn call_32(target: *mut c_void);
    #[link_name = "fpu_real_compat_code"]
    static CODE: u8;
    #[link_name = "fpu_real_compat_end"]
    static END: u8;
}

/// The memory, the number of a 32-bit system call and its arguments.
pub(super) type Target = [u64; 6];

/// Numbers of 32-bit Linux.
const RT_SIGACTION: u64 = 174;
const TGKILL: u64 = 270;
const GETPID: u64 = 20;
const SIGNAL: u64 = libc::SIGWINCH as u64;

/// Memory below 4 GiB with 32-bit code in it, and a handler registered there.
#[derive(Debug)]
pub struct Compat {
    base: *mut u8,
}

impl Compat {
    /// Memory, code and handler.
    ///
    /// # Errors
    ///
    /// The kernel runs no 32-bit programs, or the memory cannot be had: the reason for a skip.
    ///
    /// ```
    /// use fpu_hosted_test::real::{frames_are_linuxs, Classes, Compat, RegFile};
    /// match frames_are_linuxs().map_err(String::from).and_then(|()| Compat::new()) {
    ///     Ok(mut compat) => {
    ///         let load = RegFile::pattern(1, Classes::detect());
    ///         let delivered = compat.deliver(&load, 512, None);
    ///         assert_eq!((delivered.frame.len(), delivered.refused), (112 + 512, false));
    ///     }
    ///     Err(why) => println!("{why}"),
    /// }
    /// ```
    pub fn new() -> Result<Self, String> {
        let (access, kind) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
        );
        // SAFETY: new memory.
        let base = unsafe { libc::mmap(ptr::null_mut(), SIZE, access, kind, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err("no memory below 4 GiB".into());
        }
        let base = base.cast::<u8>();
        // SAFETY: the code lies between the two, and fits the first page.
        unsafe {
            let code = ptr::addr_of!(CODE);
            ptr::copy_nonoverlapping(code, base, ptr::addr_of!(END) as usize - code as usize);
        }
        // SAFETY: our own page, on which no data lie.
        let done =
            unsafe { libc::mprotect(base.cast(), 0x1000, libc::PROT_READ | libc::PROT_EXEC) };
        let mut compat = Self { base };
        if done != 0 || !compat.works() {
            return Err("this kernel runs no 32-bit programs".into());
        }
        let flags = (libc::SA_SIGINFO | 0x0400_0000) as u32; // with a restorer
        let at = |offset: usize| base as u32 + offset as u32;
        for (n, word) in [at(HANDLER), flags, at(RESTORER), 0, 0].into_iter().enumerate() {
            compat.put(ACTION + 4 * n, &word.to_le_bytes());
        }
        let mut target = [base as u64, RT_SIGACTION, SIGNAL, at(ACTION).into(), 0, 8];
        // SAFETY: the code is there, and the kernel runs it. The code may change the integer registers that it changes.
        unsafe { call_32(ptr::addr_of_mut!(target).cast()) };
        Ok(compat)
    }

    /// A child tries: where there is no such system call, or no such segment, it is ended.
    fn works(&mut self) -> bool {
        // SAFETY: the child does only what is safe after fork.
        match unsafe { libc::fork() } {
            // SAFETY: `signal`, `setrlimit` and `_exit` are safe after fork; of integers, the code changes what it may.
            0 => unsafe {
                for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGSYS] {
                    libc::signal(signal, libc::SIG_DFL);
                }
                let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                libc::setrlimit(libc::RLIMIT_CORE, &none);
                let mut target = [self.base as u64, GETPID, 0, 0, 0, 0];
                call_32(ptr::addr_of_mut!(target).cast());
                libc::_exit(0)
            },
            child => {
                let mut status = 0;
                // SAFETY: our child; the status is a local.
                let waited = unsafe { libc::waitpid(child, &mut status, 0) };
                child > 0 && waited == child && status == 0
            }
        }
    }

    /// The argument of [`call_32`] by which a thread sends itself a signal out of 32-bit code. After a fork the child
    /// has the memory too.
    pub(super) fn raise(&self, thread: libc::pid_t, signal: i32) -> Target {
        let thread = thread as u64;
        [self.base as u64, TGKILL, thread, thread, signal as u64, 0]
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        assert!(at >= 0x1000 && at + bytes.len() <= SIZE);
        // SAFETY: within the memory, behind the code.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(at), bytes.len()) };
    }

    /// Loads the registers and takes a signal in 32-bit code, of whose frame the FPU part has FSAVE's 112 bytes and
    /// `len` more; lets the return read other bytes instead, if there are any, and looks at the registers afterwards.
    ///
    /// # Panics
    ///
    /// If the bytes are too many.
    #[must_use]
    pub fn deliver(&mut self, load: &RegFile, len: usize, instead: Option<&[u8]>) -> Delivered {
        let len = 112 + len;
        assert!(len <= ROOM);
        let swap = instead.map_or(0, |bytes| {
            self.put(IN, &[0xA5; ROOM]);
            self.put(IN, bytes);
            self.base as u32 + IN as u32
        });
        self.put(LEN, &(len as u32).to_le_bytes());
        self.put(SWAP, &swap.to_le_bytes());
        // SAFETY: of this process and thread.
        let (process, thread) = unsafe { (libc::getpid(), libc::gettid()) };
        let mut target: Target =
            [self.base as u64, TGKILL, process as u64, thread as u64, SIGNAL, 0];
        let mut after = load.clone();
        let refused = with_exchange(|| {
            // SAFETY: C31: classes of this CPU. C33: system calls, and integers only.
            unsafe {
                run_between(load, call_32, ptr::addr_of_mut!(target).cast(), &mut after);
            }
        });
        // SAFETY: the handler wrote that much there.
        let frame = unsafe { std::slice::from_raw_parts(self.base.add(OUT), len) }.to_vec();
        finish(frame, refused, after)
    }
}
