//! User memory behind a protection key: the kernel's accesses to it succeed where the task's rights say so, and only there.

use core::arch::{asm, global_asm};

use fpu_x86::{KeyRights, Pkru, ProtectionKey, TaskPkru};

use crate::{
    boot::KEYED_PAGE,
    counts::{self, count},
    cpu::this_cpu,
    entry::Frame,
    fpu::KEYS,
    hw,
    task::Task,
    verdict,
};

/// The key that `boot.s` gives to [`KEYED_PAGE`].
const KEY: Option<ProtectionKey> = ProtectionKey::new(5);

// Each begins with the access, which [`answered`] knows by its address.
global_asm!(
    ".pushsection .text",
    ".globl rights_read, rights_write, rights_refused",
    "rights_read:",
    "mov rax, [rdi]",
    "mov eax, 1",
    "ret",
    "rights_write:",
    "mov qword ptr [rdi], 1",
    "mov eax, 1",
    "ret",
    "rights_refused:",
    "xor eax, eax",
    "ret",
    ".popsection",
);

extern "C" {
    fn rights_read(at: u64) -> u32;
    fn rights_write(at: u64) -> u32;
    fn rights_refused();
}

/// Asks it, on the first CPU, when it has been brought up; interrupts are off.
pub fn detect() {
    let Some(key) = KEY.filter(|_| KEYS.are_on()) else { return };
    let none = Pkru::INITIAL.with(key, KeyRights::None);
    let own = TaskPkru::new(Pkru::LINUX_DEFAULT);
    let (read, register) = KEYS.with_rights(&own, none, || {
        // SAFETY: eight bytes that no other code uses, in a page that is mapped; `answered` answers a refusal.
        (unsafe { rights_read(KEYED_PAGE) }, register())
    });
    if register != none.bits() {
        verdict::fail(format_args!("a scope's PKRU is {register:#x} and should be {none}"));
    }
    hw::set_keys_apply(read == 0);
}

/// PKRU.
fn register() -> u32 {
    let value;
    // SAFETY: asked where keys are on; it reads.
    unsafe { asm!("rdpkru", in("ecx") 0, out("eax") value, out("edx") _, options(nostack)) };
    value
}

/// A page fault of the kernel's: true if it was one of the accesses here, refused for its key.
pub fn answered(frame: &mut Frame) -> bool {
    // The page is present, and the protection key refused (SDM vol. 3, 4.7).
    const KEYED: u64 = 1 << 5 | 1;
    let here = [rights_read, rights_write].map(|access| access as *const () as u64);
    let ours = frame.vector == 14 && frame.error & KEYED == KEYED && here.contains(&frame.rip);
    if ours {
        count(&counts::KEYED);
        frame.rip = rights_refused as *const () as u64;
    }
    ours
}

/// Accesses user memory for a task. `rights` are those that must count. Interrupts are off.
pub fn access(task: &Task, rights: Pkru) {
    let Some(key) = KEY.filter(|_| hw::keys_apply()) else { return };
    let due = match rights.rights(key) {
        KeyRights::All => (1, 1),
        KeyRights::ReadOnly => (1, 0),
        KeyRights::None => (0, 0),
    };
    // SAFETY: eight bytes that no other code uses, in a page that is mapped; `answered` answers a refusal.
    let (read, written) = unsafe { (rights_read(KEYED_PAGE), rights_write(KEYED_PAGE)) };
    if (read, written) != due {
        verdict::fail(format_args!(
            "task {} on CPU {}: an access with the wrong rights: {read} read and {written} written with {rights}",
            task.slot,
            this_cpu().number.get(),
        ));
    }
}
