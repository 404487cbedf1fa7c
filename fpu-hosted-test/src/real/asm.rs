//! The assembly: all registers from a file, all registers to a file, and sequences of these.
//!
//! Every routine reads the classes to move from the file itself (they were found by CPUID, so no
//! instruction is executed that the CPU does not have).

use std::{arch::global_asm, ffi::c_void};

use super::{
    regfile::{CLASSES, FX, MASKS},
    Classes, RegFile,
};

global_asm!(
    include_str!("registers.s"),
    ".pushsection .text.fpu_real,\"ax\",@progbits",
    // rdi = file. Changes the flags and nothing else that the file does not hold.
    ".p2align 4",
    ".globl fpu_real_load",
    ".type fpu_real_load,@function",
    "fpu_real_load:",
    "fpu_load_registers",
    "ret",
    ".size fpu_real_load, . - fpu_real_load",
    // rdi = file. Changes the flags and no register.
    ".p2align 4",
    ".globl fpu_real_dump",
    ".type fpu_real_dump,@function",
    "fpu_real_dump:",
    "fpu_dump_registers",
    "ret",
    ".size fpu_real_dump, . - fpu_real_dump",
    // edi = classes. What the ABI expects of the registers at a function's start.
    ".p2align 4",
    ".globl fpu_real_sane",
    ".type fpu_real_sane,@function",
    "fpu_real_sane:",
    "fninit",
    "push 0x1F80",
    "ldmxcsr [rsp]",
    "pop rax",
    "test edi, {avx}",
    "jz 1f",
    "vzeroupper",
    "1: ret",
    ".size fpu_real_sane, . - fpu_real_sane",
    // rdi = file to load, rsi = thunk, rdx = its argument, rcx = file to dump to.
    ".p2align 4",
    ".globl fpu_real_run_between",
    ".type fpu_real_run_between,@function",
    "fpu_real_run_between:",
    "push rbx",
    "push rbp",
    "push r12",
    "mov rbx, rcx",
    "mov rbp, rsi",
    "mov r12, rdx",
    "call fpu_real_load",
    "mov rdi, r12",
    "call rbp",
    "mov rdi, rbx",
    "call fpu_real_dump",
    "mov edi, [rbx + {classes}]",
    "call fpu_real_sane",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    ".size fpu_real_run_between, . - fpu_real_run_between",
    // rdi = scratch file, rsi = thunk, rdx = its argument.
    ".p2align 4",
    ".globl fpu_real_call_preserving",
    ".type fpu_real_call_preserving,@function",
    "fpu_real_call_preserving:",
    "push rbx",
    "mov rbx, rdi",
    "mov rax, rdx",
    "call fpu_real_dump",
    "mov rdi, rax",
    "call rsi",
    "mov rdi, rbx",
    "call fpu_real_load",
    "pop rbx",
    "ret",
    ".size fpu_real_call_preserving, . - fpu_real_call_preserving",
    ".popsection",
    ".purgem fpu_load_registers",
    ".purgem fpu_dump_registers",
    fx = const FX,
    masks = const MASKS,
    classes = const CLASSES,
    avx = const Classes::AVX.bits(),
    avx512 = const Classes::AVX512.bits(),
    wide = const Classes::WIDE_MASKS.bits(),
);

/// Code to run with the registers holding what a file holds. It uses integers only until it has done
/// what it is for (the x87 stack may be full, rounding unusual), and does not unwind.
pub type Thunk = unsafe extern "C" fn(*mut c_void);

extern "C" {
    #[link_name = "fpu_real_run_between"]
    fn run_between_asm(load: *const RegFile, thunk: Thunk, arg: *mut c_void, dump: *mut RegFile);

    /// Loads every register from a file and leaves it there. For assembly (`sym load_registers`, RDI
    /// the file; no other general register changes), and for code that is checked to be scalar.
    ///
    /// # Safety
    ///
    /// * **C31** `file` points to a [`RegFile`] of classes that this CPU has.
    /// * **C32** before compiled code that may use vector or x87 registers runs,
    ///   [`sane_registers`] is called.
    #[link_name = "fpu_real_load"]
    pub fn load_registers(file: *const RegFile);

    /// Dumps every register to a file, changing none. For assembly (RDI the file; no general register
    /// changes), and for code that is checked to be scalar.
    ///
    /// # Safety
    ///
    /// File of this CPU (C31), writable.
    #[link_name = "fpu_real_dump"]
    pub fn dump_registers(file: *mut RegFile);

    /// Puts the registers into the state that the ABI expects: FNINIT, MXCSR = 0x1F80, and no upper
    /// halves in use.
    ///
    /// # Safety
    ///
    /// File of this CPU (C31) of the classes; the registers hold nothing that is needed.
    #[link_name = "fpu_real_sane"]
    pub fn sane_registers(classes: Classes);

    /// Calls `thunk(arg)` with the registers as they are, and puts them back to that after: what
    /// compiled code does in a kernel that does not use these registers.
    ///
    /// # Safety
    ///
    /// File of this CPU (C31) of `scratch`, writable; `thunk` may be called with `arg`, and is as [`Thunk`] says.
    #[link_name = "fpu_real_call_preserving"]
    pub fn call_preserving(scratch: *mut RegFile, thunk: Thunk, arg: *mut c_void);
}

/// Loads all registers from `load`, calls `thunk(arg)`, dumps all registers to `dump`, and puts the
/// ABI's defaults back: nothing that the compiler made comes between but the thunk itself.
///
/// ```
/// use std::ffi::c_void;
/// use fpu_hosted_test::real::{run_between, Classes, RegFile};
/// unsafe extern "C" fn nothing(_: *mut c_void) {}
/// let classes = Classes::detect();
/// let (before, mut after) = (RegFile::pattern(1, classes), RegFile::initial(classes));
/// // SAFETY: C31: classes of this CPU; the thunk does nothing.
/// unsafe { run_between(&before, nothing, std::ptr::null_mut(), &mut after) };
/// assert_eq!(before.first_difference(&after), None);
/// ```
///
/// # Safety
///
/// * File of this CPU (C31) for both files.
/// * **C33** `thunk` may be called with `arg`, and is as [`Thunk`] says.
pub unsafe fn run_between(load: &RegFile, thunk: Thunk, arg: *mut c_void, dump: &mut RegFile) {
    // SAFETY: file of this CPU (C31), callable thunk (C33); the assembly keeps what the ABI says is the caller's, and
    // ends with the control words that it expects.
    unsafe { run_between_asm(load, thunk, arg, dump) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{arch::asm, ptr::addr_of_mut};

    unsafe extern "C" fn nothing(_: *mut c_void) {}

    #[test]
    fn what_is_loaded_is_what_is_dumped() {
        let all = Classes::detect();
        let some = [Classes::BASE, Classes::BASE.with(Classes::AVX), all];
        for classes in some.map(|c| c.and(all)) {
            for seed in 0..50 {
                let load = RegFile::pattern(seed, classes);
                let mut dump = RegFile::pattern(seed + 1000, classes);
                // SAFETY: C31: a part of the detected classes. C33: does nothing.
                unsafe { run_between(&load, nothing, std::ptr::null_mut(), &mut dump) };
                assert_eq!(load.first_difference(&dump), None, "{classes:?}");
            }
        }
    }

    #[test]
    fn the_initial_state_is_legal_and_the_abi_gets_its_control_words_back() {
        let classes = Classes::detect();
        let load = RegFile::pattern(7, classes);
        let mut dump = load.clone();
        // SAFETY: C31: the detected classes. C33: does nothing.
        unsafe { run_between(&load, nothing, std::ptr::null_mut(), &mut dump) };
        let (mut mxcsr, mut fcw) = (0u32, 0u16);
        // SAFETY: stores two control words.
        unsafe { asm!("stmxcsr [{}]", "fnstcw [{}]", in(reg) &mut mxcsr, in(reg) &mut fcw) };
        assert_eq!((mxcsr, fcw), (0x1F80, 0x37F));
        let initial = RegFile::initial(classes);
        // SAFETY: C31: the initial file of the detected classes. C33: does nothing.
        unsafe { run_between(&initial, nothing, std::ptr::null_mut(), &mut dump) };
        assert_eq!(initial.first_difference(&dump), None);
    }

    #[test]
    fn a_thunk_that_changes_one_register_is_named() {
        unsafe extern "C" fn xmm9(_: *mut c_void) {
            // SAFETY: a register that the ABI does not preserve.
            unsafe { asm!("pxor xmm9, xmm9", out("xmm9") _) }
        }
        unsafe extern "C" fn stack(_: *mut c_void) {
            // SAFETY: the harness resets the x87 unit afterwards.
            unsafe { asm!("fnstsw ax", "fincstp", out("ax") _) }
        }
        unsafe extern "C" fn rounding(arg: *mut c_void) {
            // SAFETY: `arg` points to a legal MXCSR; the harness resets it afterwards.
            unsafe { asm!("ldmxcsr [{}]", in(reg) arg) }
        }
        let classes = Classes::detect();
        let load = RegFile::pattern(11, classes);
        let mut dump = load.clone();
        let mut mxcsr: u32 = load.mxcsr() ^ 0x2000;
        let arg = addr_of_mut!(mxcsr).cast();
        for (thunk, name) in [(xmm9 as Thunk, "xmm9[0]"), (stack, "st0"), (rounding, "mxcsr")] {
            // SAFETY: C31: the detected classes. C33: each is such a thunk.
            unsafe { run_between(&load, thunk, arg, &mut dump) };
            assert_eq!(load.first_difference(&dump).unwrap().to_string(), name);
        }
    }

    #[test]
    fn a_preserving_call_hides_what_compiled_code_does() {
        unsafe extern "C" fn scribble(arg: *mut c_void) {
            // SAFETY: C31: the file lives as long as the test.
            unsafe { load_registers(arg.cast()) }
        }
        struct Inner {
            scratch: RegFile,
            other: RegFile,
        }
        unsafe extern "C" fn preserving(arg: *mut c_void) {
            let inner = arg.cast::<Inner>();
            // SAFETY: the test's value; the thunk takes a file.
            unsafe {
                call_preserving(
                    addr_of_mut!((*inner).scratch),
                    scribble,
                    addr_of_mut!((*inner).other).cast(),
                )
            }
        }
        let classes = Classes::detect();
        let load = RegFile::pattern(13, classes);
        let mut dump = load.clone();
        let mut inner =
            Inner { scratch: RegFile::initial(classes), other: RegFile::pattern(14, classes) };
        // SAFETY: C31: the detected classes. C33: integers only around the assembly.
        unsafe { run_between(&load, preserving, addr_of_mut!(inner).cast(), &mut dump) };
        assert_eq!(load.first_difference(&dump), None);
        // SAFETY: C31: the detected classes. C33: integers only; without the preserving call the same thunk shows.
        unsafe { run_between(&load, scribble, addr_of_mut!(inner.other).cast(), &mut dump) };
        assert_eq!(inner.other.first_difference(&dump), None);
    }
}
