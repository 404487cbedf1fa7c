//! Signal frames of the host's kernel: caught, replaced by others, and what the registers hold after the return.
//!
//! The kernel writes a frame when it delivers a signal and reads it when the handler returns. A handler here copies the
//! frame out, and may put other bytes in its place or point the return to them. Where the kernel refuses those bytes,
//! the kernel sends SIGSEGV, which is counted.

use std::{
    arch::asm,
    cell::Cell,
    ffi::{c_int, c_void},
    mem, ptr,
    sync::Once,
};

use fpu_x86::{Image, ImageMut, X87};

use super::{refuses_reserved_mxcsr, run_between, Classes, RegFile, ANY_MXCSR};

const MAGIC1: u32 = 0x4650_5853;
/// Larger than any frame that is known.
pub const ROOM: usize = 20480;

/// Bytes for a frame, aligned as the kernel wants them.
#[repr(C, align(64))]
pub struct FrameBuffer(pub [u8; ROOM]);

impl std::fmt::Debug for FrameBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrameBuffer")
    }
}

impl FrameBuffer {
    /// These bytes, and behind them bytes that no frame has.
    ///
    /// ```
    /// let buffer = fpu_hosted_test::real::FrameBuffer::of(&[1, 2]);
    /// assert_eq!(buffer.0[..3], [1, 2, 0xA5]);
    /// ```
    ///
    /// # Panics
    ///
    /// If the bytes are more than [`ROOM`].
    #[must_use]
    pub fn of(bytes: &[u8]) -> Box<Self> {
        let mut buffer = Box::new(Self([0xA5; ROOM]));
        buffer.0[..bytes.len()].copy_from_slice(bytes);
        buffer
    }
}

/// The action of the handler.
#[derive(Debug)]
pub enum Edit<'a> {
    /// Does nothing.
    Keep,
    /// Writes these bytes over the frame's, which are at least as many.
    InPlace(&'a [u8]),
    /// Lets the return read these instead.
    Elsewhere(&'a FrameBuffer),
    /// Lets the return read these bytes at so many bytes further, where the frame's alignment is lost.
    Misaligned(&'a FrameBuffer, usize),
    /// Takes another signal before it does something else.
    Nested(Box<Nested<'a>>, Box<Edit<'a>>),
}

/// A signal that is taken in a handler.
#[derive(Debug)]
pub struct Nested<'a> {
    /// The registers before the signal.
    pub load: &'a RegFile,
    /// Whether the handler runs on the other stack.
    pub on_other_stack: bool,
    /// The action of its handler.
    pub edit: Edit<'a>,
    /// The result.
    pub seen: &'a mut Option<Delivered>,
}

/// A signal that was delivered and returned from.
#[derive(Debug)]
pub struct Delivered {
    /// The FPU part of the frame, as the kernel wrote it.
    pub frame: Vec<u8>,
    /// Whether the frame lay on the alternative stack.
    pub on_other_stack: bool,
    /// Address of the whole frame, of which that is a part.
    pub lowest: usize,
    /// Whether the kernel refused the bytes that it was to read.
    pub refused: bool,
    /// The registers after the return; of no meaning if it was refused.
    pub after: RegFile,
    /// PKRU after the return, where there is one.
    pub pkru: Option<u32>,
}

struct Exchange<'a> {
    edit: Edit<'a>,
    frame: Vec<u8>,
    on_other_stack: bool,
    lowest: usize,
    returning: bool,
    refused: bool,
}

impl<'a> Exchange<'a> {
    fn new(edit: Edit<'a>, frame: Vec<u8>) -> Self {
        let (on_other_stack, returning, refused) = (false, false, false);
        Self { edit, frame, on_other_stack, lowest: 0, returning, refused }
    }
}

thread_local! {
    static EXCHANGE: Cell<*mut c_void> = const { Cell::new(ptr::null_mut()) };
    static OTHER_STACK: Cell<usize> = const { Cell::new(0) };
}
const STACK: usize = 1 << 18;

/// On the stack that the thread has, and on the alternative one.
const SIGNALS: [c_int; 2] = [libc::SIGUSR1, libc::SIGUSR2];

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let action = |signal, handler: usize, flags| {
            // SAFETY: all-zero is a valid `sigaction`: no flags, an empty mask.
            let mut action: libc::sigaction = unsafe { mem::zeroed() };
            (action.sa_sigaction, action.sa_flags) = (handler, libc::SA_SIGINFO | flags);
            // SAFETY: both handlers have the form that SA_SIGINFO asks for.
            assert_eq!(unsafe { libc::sigaction(signal, &action, ptr::null_mut()) }, 0);
        };
        let nested = libc::SA_NODEFER;
        action(SIGNALS[0], on_signal as *const () as usize, nested);
        action(SIGNALS[1], on_signal as *const () as usize, nested | libc::SA_ONSTACK);
        action(libc::SIGSEGV, on_refusal as *const () as usize, 0);
    });
    if OTHER_STACK.get() == 0 {
        // Each thread's own, and as long-lived as the process.
        OTHER_STACK.set(Box::leak(vec![0u8; STACK].into_boxed_slice()).as_mut_ptr() as usize);
        end_other_stack(STACK);
    }
}

/// Lets the other stack end after so many bytes.
fn end_other_stack(len: usize) {
    let stack =
        libc::stack_t { ss_sp: OTHER_STACK.get() as *mut c_void, ss_flags: 0, ss_size: len };
    // SAFETY: memory that stays.
    assert_eq!(unsafe { libc::sigaltstack(&stack, ptr::null_mut()) }, 0);
}

fn word(frame: *const u8, at: usize) -> u32 {
    // SAFETY: the kernel's frame has 512 bytes at least.
    unsafe { frame.add(at).cast::<u32>().read_unaligned() }
}

unsafe extern "C" fn on_signal(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    let exchange = EXCHANGE.get().cast::<Exchange<'_>>();
    // SAFETY: `deliver` waits below with its exchange, and is the only one to send these signals to this thread.
    let exchange = unsafe { &mut *exchange };
    // SAFETY: with SA_SIGINFO the third argument is the interrupted context, ours to change.
    let machine = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext };
    let frame = machine.fpregs.cast::<u8>();
    let len = if word(frame, 464) == MAGIC1 { word(frame, 468) as usize } else { 512 };
    let len = len.min(ROOM);
    // The return address is in front of the context.
    exchange.lowest = context as usize - 8;
    // SAFETY: the kernel wrote that much there.
    exchange.frame.extend_from_slice(unsafe { std::slice::from_raw_parts(frame, len) });
    let stack = OTHER_STACK.get();
    exchange.on_other_stack = (stack..stack + STACK).contains(&(frame as usize));
    if let Edit::Nested(..) = exchange.edit {
        let Edit::Nested(nested, then) = mem::replace(&mut exchange.edit, Edit::Keep) else {
            return;
        };
        *nested.seen = Some(deliver(nested.load, nested.on_other_stack, nested.edit));
        exchange.edit = *then;
    }
    match &exchange.edit {
        Edit::Keep | Edit::Nested(..) => {}
        Edit::InPlace(bytes) => {
            assert!(bytes.len() <= len);
            // SAFETY: within the frame, which no other code looks at now.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), frame, bytes.len()) };
        }
        Edit::Elsewhere(buffer) => machine.fpregs = ptr::from_ref(*buffer).cast_mut().cast(),
        Edit::Misaligned(buffer, bytes) => {
            let place = ptr::from_ref(*buffer).cast_mut().cast::<u8>();
            machine.fpregs = place.wrapping_add(*bytes).cast();
        }
    }
    exchange.returning = true;
}

/// The kernel has refused a frame: the integer registers are those of the interrupted program already.
unsafe extern "C" fn on_refusal(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    let exchange = EXCHANGE.get().cast::<Exchange<'_>>();
    // SAFETY: as in `on_signal`, if anything is there.
    match unsafe { exchange.as_mut() } {
        Some(exchange) if exchange.returning && !exchange.refused => exchange.refused = true,
        // Any other fault: it comes again, and ends the process.
        // SAFETY: async-signal-safe.
        _ => unsafe {
            libc::signal(libc::SIGSEGV, libc::SIG_DFL);
        },
    }
}

/// Process, thread and signal.
type Target = [u64; 3];

pub(super) unsafe extern "C" fn raise(target: *mut c_void) {
    let word = target.cast::<u64>();
    // SAFETY: the callers pass one. Read word by word, so that no vector register is used.
    let (process, thread, signal) = unsafe { (*word, *word.add(1), *word.add(2)) };
    // SAFETY: a system call that touches no memory of this program; the handler changes no integer register.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") libc::SYS_tgkill as u64 => _,
            in("rdi") process,
            in("rsi") thread,
            in("rdx") signal,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
}

/// PKRU, where the system has enabled it.
fn pkru() -> Option<u32> {
    // The instruction is there; SSE2 has it. Unsafe in older compilers.
    #[allow(unused_unsafe)]
    // SAFETY: every 64-bit CPU has CPUID.
    let words = unsafe { std::arch::x86_64::__cpuid_count(7, 0) };
    if words.ecx & 1 << 4 == 0 {
        return None;
    }
    let value: u32;
    // SAFETY: OSPKE says that the instruction may be used; it reads.
    unsafe { asm!("rdpkru", in("ecx") 0, out("eax") value, out("edx") _) };
    Some(value)
}

/// Loads the registers, takes a signal, and looks at the registers after the handler has returned.
///
/// ```
/// use fpu_hosted_test::real::{deliver, frames_are_linuxs, Classes, Edit, RegFile};
/// if frames_are_linuxs().is_ok() {
///     let load = RegFile::pattern(1, Classes::detect());
///     let delivered = deliver(&load, false, Edit::Keep);
///     assert_eq!(load.first_difference(&delivered.after), None);
/// }
/// ```
///
/// # Panics
///
/// If the system has no such signals.
#[must_use]
pub fn deliver(load: &RegFile, on_other_stack: bool, edit: Edit<'_>) -> Delivered {
    install();
    let mut exchange = Exchange::new(edit, Vec::with_capacity(ROOM));
    let mut after = load.clone();
    exchange.run(load, on_other_stack, &mut after);
    assert!(exchange.returning, "the signal has not come");
    let Exchange { frame, on_other_stack, lowest, refused, .. } = exchange;
    Delivered { frame, on_other_stack, lowest, refused, after, pkru: pkru() }
}

impl Exchange<'_> {
    fn run(&mut self, load: &RegFile, on_other_stack: bool, after: &mut RegFile) {
        // SAFETY: of this process and thread.
        let (process, thread) = unsafe { (libc::getpid(), libc::gettid()) };
        let signal = SIGNALS[usize::from(on_other_stack)];
        let mut target: Target = [process as u64, thread as u64, signal as u64];
        let outer = EXCHANGE.replace(ptr::from_mut(self).cast());
        // SAFETY: C31: classes of this CPU. C33: a system call, and integers only.
        unsafe { run_between(load, raise, ptr::addr_of_mut!(target).cast(), after) };
        EXCHANGE.set(outer);
    }
}

/// How many bytes of an alternative stack a signal's frame takes, from the stack's end, which lies `short` bytes before a
/// multiple of 4096.
///
/// ```
/// use fpu_hosted_test::real::{frame_extent, frames_are_linuxs, Classes, RegFile};
/// if frames_are_linuxs().is_ok() {
///     assert!(frame_extent(&RegFile::pattern(1, Classes::detect()), 5) >= 512 + 440);
/// }
/// ```
///
/// # Panics
///
/// If the frame does not lie on that stack.
#[must_use]
pub fn frame_extent(load: &RegFile, short: usize) -> usize {
    install();
    let base = OTHER_STACK.get();
    let end = (base + STACK) / 4096 * 4096 - short;
    end_other_stack(end - base);
    let delivered = deliver(load, true, Edit::Keep);
    end_other_stack(STACK);
    assert!(delivered.on_other_stack);
    end - delivered.lowest
}

/// The wait status of a process without a handler for SIGSEGV that returns through this frame.
///
/// ```
/// use fpu_hosted_test::real::{fate, frames_are_linuxs, Classes, FrameBuffer, RegFile};
/// if frames_are_linuxs().is_ok() {
///     let mut frame = FrameBuffer::of(&[0; 512]);
///     let load = RegFile::pattern(1, Classes::detect());
///     assert_eq!(fate(&load, &frame), Ok(0));
///     frame.0[27] = 0x80; // a bit that MXCSR does not have
///     assert_eq!(fate(&load, &frame), Ok(libc::SIGSEGV));
/// }
/// ```
///
/// # Errors
///
/// No other process could be made.
pub fn fate(load: &RegFile, frame: &FrameBuffer) -> Result<c_int, &'static str> {
    install();
    let mut exchange = Exchange::new(Edit::Elsewhere(frame), Vec::with_capacity(ROOM));
    let mut after = load.clone();
    // SAFETY: the child does only what is safe after fork.
    match unsafe { libc::fork() } {
        -1 => Err("no other process"),
        // SAFETY: `signal`, `setrlimit` and `_exit` are safe after fork; the handler has room for the frame.
        0 => unsafe {
            libc::signal(libc::SIGSEGV, libc::SIG_DFL);
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::setrlimit(libc::RLIMIT_CORE, &none);
            exchange.run(load, false, &mut after);
            libc::_exit(0)
        },
        child => {
            let mut status = 0;
            // SAFETY: our child; the status is a local.
            match unsafe { libc::waitpid(child, &mut status, 0) } == child {
                true => Ok(status),
                false => Err("the other process has gone"),
            }
        }
    }
}

/// Runs something whose frame the kernel may refuse. Returns whether it did.
pub(super) fn with_exchange(run: impl FnOnce()) -> bool {
    install();
    let mut exchange = Exchange::new(Edit::Keep, Vec::new());
    exchange.returning = true;
    let outer = EXCHANGE.replace(ptr::addr_of_mut!(exchange).cast());
    run();
    EXCHANGE.set(outer);
    exchange.refused
}

/// What the handler saw of the signal.
pub(super) fn finish(frame: Vec<u8>, refused: bool, after: RegFile) -> Delivered {
    Delivered { frame, on_other_stack: false, lowest: 0, refused, after, pkru: pkru() }
}

/// The registers of an image, as a file of these classes.
#[must_use]
pub fn registers_of(image: &Image<'_>, classes: Classes) -> RegFile {
    let mut file = RegFile::initial(classes);
    let x87 = image.x87();
    file.set_fcw(x87.fcw);
    file.set_fsw(x87.fsw);
    file.set_ftw(x87.tags);
    file.set_mxcsr(image.mxcsr());
    let half = |bytes: &[u8], at| u64::from_le_bytes(std::array::from_fn(|n| bytes[8 * at + n]));
    for (n, st) in x87.st.iter().enumerate() {
        file.set_x87(n, half(st, 0), u16::from_le_bytes([st[8], st[9]]));
    }
    for n in 0..16 {
        let low = image.xmm(n).unwrap_or_default();
        let (high, upper) =
            (image.ymm_hi(n).unwrap_or_default(), image.zmm_hi256(n).unwrap_or_default());
        let whole: Vec<u8> = low.iter().chain(&high).chain(&upper).copied().collect();
        let other = image.zmm_hi16(16 + n).unwrap_or([0; 64]);
        for w in 0..8 {
            file.vector_mut(n)[w] = half(&whole, w);
            file.vector_mut(16 + n)[w] = half(&other, w);
        }
    }
    for n in 0..8 {
        *file.mask_mut(n) = image.opmask(n).unwrap_or_default();
    }
    file
}

/// Puts the registers of a file into an image of a plan that has them.
///
/// # Panics
///
/// If the image refuses a register: the plan does not have it, or MXCSR is not legal.
pub fn set_registers(image: &mut ImageMut<'_>, file: &RegFile) {
    let mut st = [[0; 10]; 8];
    for (n, st) in st.iter_mut().enumerate() {
        let (significand, exponent) = file.x87(n);
        st[..8].copy_from_slice(&significand.to_le_bytes());
        st[8..].copy_from_slice(&exponent.to_le_bytes());
    }
    let (fcw, fsw, tags) = (file.fcw(), file.fsw(), file.ftw());
    image.set_x87(&X87 { fcw, fsw, tags, st, ..X87::INITIAL });
    image.set_mxcsr(file.mxcsr()).expect("a legal MXCSR");
    let classes = file.classes();
    for n in 0..32 {
        let vector: Vec<u8> = file.vector(n).iter().flat_map(|word| word.to_le_bytes()).collect();
        let part = |from: usize, to: usize| vector[from..to].iter().copied();
        if n < 16 {
            let mut bytes = part(0, 32);
            image.set_xmm(n, std::array::from_fn(|_| bytes.next().unwrap_or(0))).expect("SSE");
            if classes.contains(Classes::AVX) {
                let high = std::array::from_fn(|_| bytes.next().unwrap_or(0));
                image.set_ymm_hi(n, high).expect("AVX");
            }
        }
        if classes.contains(Classes::AVX512) {
            let mut bytes = part(if n < 16 { 32 } else { 0 }, 64);
            let done = match n {
                0..=15 => {
                    image.set_zmm_hi256(n, std::array::from_fn(|_| bytes.next().unwrap_or(0)))
                }
                _ => image.set_zmm_hi16(n, std::array::from_fn(|_| bytes.next().unwrap_or(0))),
            };
            done.expect("AVX-512");
        }
    }
    for n in (0..8).filter(|_| classes.contains(Classes::AVX512)) {
        image.set_opmask(n, file.mask(n)).expect("AVX-512");
    }
}

/// Checks that Linux on the CPU writes and reads signal frames here, and not an emulator of user mode, which has frames
/// of its own.
///
/// # Errors
///
/// The reason for a skip.
///
/// ```
/// println!("{:?}", fpu_hosted_test::real::frames_are_linuxs());
/// ```
pub fn frames_are_linuxs() -> Result<(), &'static str> {
    if release() < Some((5, 14)) {
        return Err("a kernel before Linux 5.14 takes a frame that later ones refuse");
    }
    // QEMU's emulator loads any MXCSR, which no CPU does.
    match refuses_reserved_mxcsr() {
        true => Ok(()),
        false => Err(ANY_MXCSR),
    }
}

/// Version and patch level of the running kernel.
fn release() -> Option<(u32, u32)> {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}
