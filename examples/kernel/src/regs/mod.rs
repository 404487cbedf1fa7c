//! Files of registers, and the kernel's copies of the assembly that moves them.
//!
//! The hosted tests have all of this for user mode. They are a package that needs `std`, so their very
//! files are included here by path, and the assembly as macros (`registers.s`), which ring 3 has too.

use core::arch::global_asm;

// Not every name that the hosted tests need is needed here.
#[allow(dead_code)]
#[path = "../../../../fpu-hosted-test/src/real/classes.rs"]
mod classes;
#[allow(dead_code)]
#[path = "../../../../fpu-hosted-test/src/real/name.rs"]
mod name;
#[allow(dead_code)]
#[path = "../../../../fpu-hosted-test/src/random.rs"]
mod random;
#[allow(dead_code)]
#[path = "../../../../fpu-hosted-test/src/real/regfile.rs"]
mod regfile;

pub use classes::Classes;
pub use name::RegisterName;
use random::Random;
pub use regfile::RegFile;

/// Offsets in a [`RegFile`] of the FXSAVE image, the masks and the classes: operands of `registers.s`.
pub const FX: usize = regfile::FX;
/// See [`FX`].
pub const MASKS: usize = regfile::MASKS;
/// See [`FX`].
pub const CLASSES: usize = regfile::CLASSES;

global_asm!(
    include_str!("../../../../fpu-hosted-test/src/real/registers.s"),
    ".pushsection .text.kernel_regs,\"ax\",@progbits",
    ".p2align 4",
    ".globl kernel_regs_load",
    ".type kernel_regs_load,@function",
    "kernel_regs_load:",
    "fpu_load_registers",
    "ret",
    ".size kernel_regs_load, . - kernel_regs_load",
    ".p2align 4",
    ".globl kernel_regs_dump",
    ".type kernel_regs_dump,@function",
    "kernel_regs_dump:",
    "fpu_dump_registers",
    "ret",
    ".size kernel_regs_dump, . - kernel_regs_dump",
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

extern "C" {
    /// Loads every register from a file, and changes no general register but the flags. The kernel is
    /// compiled without these registers, so they stay until the kernel section ends.
    ///
    /// # Safety
    ///
    /// * **C34** `file` points to a [`RegFile`] of classes that this CPU has and XCR0 enables; without
    ///   [`Classes::AVX`], CR4.OSFXSR alone is enough.
    /// * **C35** the registers are the kernel's to change: it is inside a kernel FPU section, and CR0.TS
    ///   is clear.
    #[link_name = "kernel_regs_load"]
    pub fn load(file: *const RegFile);

    /// Dumps every register to a file, and changes none but the flags.
    ///
    /// # Safety
    ///
    /// * File of enabled classes (C34), writable, and the file was made by [`RegFile::initial`] or
    ///   [`RegFile::pattern`]: it says which classes to dump.
    /// * **C36** CR0.TS is clear.
    #[link_name = "kernel_regs_dump"]
    pub fn dump(file: *mut RegFile);
}
