//! What a save and a restore cost by each instruction that this CPU offers, and whether it is better
//! to choose it by a branch on the plan or by a type.
//!
//! ```text
//! cargo run --release -p fpu-x86 --example rungs
//! ```
//!
//! Time-stamp counts between two serialised readings, less the least that two readings alone cost; the
//! smallest and the median of many. One save or restore is no finer than the counter's steps, so the two
//! ways are compared by round trips (a save and a restore, many in a row), in turn, in the same run. In a row
//! nothing is modified between restore and save, and XSAVEOPT leaves out what it can.
#![allow(missing_docs)]

use core::{arch::asm, hint::black_box, ptr::NonNull};

use fpu_core::{Area, RawFpu, SaveArea};
use fpu_x86::{Components, Format, Plan, SaveInstruction};

const SAMPLES: usize = 4001;
/// Round trips in a row.
const TRIPS: u64 = 64;
const ROWS: usize = 801;

/// What the registers hold.
#[derive(Clone, Copy, PartialEq)]
enum Live {
    Nothing,
    Avx,
    Avx512,
}

/// The steps with the rung as a type: no branch is left. They are what `Plan` does, without asking.
struct Typed<const RUNG: u8> {
    mask: u64,
}
const XSAVEC: u8 = 0;
const XSAVEOPT: u8 = 1;
const XSAVE: u8 = 2;
const FXSAVE: u8 = 3;

macro_rules! by_mask {
    ($insn:literal, $area:expr, $mask:expr) => {
        asm!(
            concat!($insn, " [{}]"),
            in(reg) $area.as_ptr(),
            in("eax") $mask as u32,
            in("edx") ($mask >> 32) as u32,
            options(nostack, preserves_flags),
        )
    };
}

impl<const RUNG: u8> Typed<RUNG> {
    /// # Safety
    ///
    /// Valid area (C9), registers free (C10) as for [`RawFpu::save`]; the CPU has the instruction.
    #[inline(always)]
    unsafe fn save(&self, area: NonNull<u8>) {
        // SAFETY: the caller's.
        unsafe {
            match RUNG {
                XSAVEC => by_mask!("xsavec64", area, self.mask),
                XSAVEOPT => by_mask!("xsaveopt64", area, self.mask),
                XSAVE => by_mask!("xsave64", area, self.mask),
                _ => asm!("fxsave64 [{}]", in(reg) area.as_ptr(), options(nostack)),
            }
        }
    }
    /// # Safety
    ///
    /// Valid area (C9), registers free (C10) as for [`RawFpu::restore`]; the CPU has the instruction.
    #[inline(always)]
    unsafe fn restore(&self, area: NonNull<u8>) -> u32 {
        let vector;
        // SAFETY: the caller's. XOR and NOP stand for those of `Plan`.
        unsafe {
            if RUNG == FXSAVE {
                asm!("fxrstor64 [rdi]", "xor eax, eax", "nop dword ptr [rax + rax + 1]",
                    in("rdi") area.as_ptr(), lateout("eax") vector, clobber_abi("sysv64"));
            } else {
                asm!("xrstor64 [rdi]", "xor eax, eax", "nop dword ptr [rax + rax + 1]",
                    in("rdi") area.as_ptr(), inlateout("eax") self.mask as u32 => vector,
                    in("edx") (self.mask >> 32) as u32, clobber_abi("sysv64"));
            }
        }
        vector
    }
}

#[inline(always)]
fn count() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter; the fences keep what is measured between two readings.
    unsafe {
        asm!("lfence", "rdtsc", "lfence", out("eax") low, out("edx") high,
            options(nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

fn fill(live: Live) {
    // SAFETY: all that changes are vector, mask and x87 registers, which `clobber_abi` names; only
    // registers that the plan has are asked for.
    unsafe {
        if live != Live::Nothing {
            asm!(
                "fninit",
                "fld1",
                ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
                "vpcmpeqd ymm\\n, ymm\\n, ymm\\n",
                ".endr",
                clobber_abi("sysv64")
            );
        }
        if live == Live::Avx512 {
            asm!(".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
                "vpternlogd zmm\\n, zmm\\n, zmm\\n, 0xff", ".endr",
                ".irp n,1,2,3,4,5,6,7", "kxnorw k\\n, k\\n, k\\n", ".endr", clobber_abi("sysv64"));
        }
    }
}

struct Figures(Vec<u64>);

impl Figures {
    fn show(mut self, empty: u64, each: u64) -> String {
        self.0.sort_unstable();
        let net = |count: u64| count.saturating_sub(empty) as f64 / each as f64;
        let digits = usize::from(each > 1);
        let (least, median) = (net(self.0[0]), net(self.0[self.0.len() / 2]));
        format!("{least:.digits$} / {median:.digits$}")
    }
}

fn least_of_nothing() -> u64 {
    (0..SAMPLES)
        .map(|_| {
            let from = count();
            count() - from
        })
        .min()
        .unwrap_or(0)
}

/// One save, one restore, the plan's round trips, the type's.
fn measure<const RUNG: u8>(plan: &Plan, live: Live) -> [Figures; 4] {
    let (area, initial) = (Area::<16384>::new(), Area::<16384>::new());
    assert!(plan.area_len() <= area.len());
    let typed = Typed::<RUNG> { mask: plan.plan_word() };
    let mut figures = [(); 4].map(|()| Figures(Vec::with_capacity(SAMPLES)));
    // SAFETY: C9: both areas are ours and large enough. C10: the compiler keeps nothing in the registers
    // across a restore, which says that it changes them.
    unsafe {
        plan.write_initial(area.base());
        plan.write_initial(initial.base());
        for _ in 0..SAMPLES {
            let plan = black_box(plan);
            assert!(plan.restore(initial.base()).is_ok());
            fill(live);
            let from = count();
            plan.save(area.base());
            figures[0].0.push(count() - from);
            let from = count();
            let done = plan.restore(area.base());
            figures[1].0.push(count() - from);
            assert!(done.is_ok());
        }
        for row in 0..2 * ROWS {
            let (plan, typed) = (black_box(plan), black_box(&typed));
            assert!(plan.restore(initial.base()).is_ok());
            fill(live);
            let mut refused = 0;
            let from = count();
            if row % 2 == 0 {
                for _ in 0..TRIPS {
                    plan.save(area.base());
                    refused |= u32::from(plan.restore(area.base()).is_err());
                }
            } else {
                for _ in 0..TRIPS {
                    typed.save(area.base());
                    refused |= typed.restore(area.base());
                }
            }
            figures[2 + row % 2].0.push(count() - from);
            assert_eq!(refused, 0);
        }
        assert!(plan.restore(initial.base()).is_ok());
    }
    figures
}

fn brand() -> String {
    let brand = raw_cpuid::CpuId::new().get_processor_brand_string();
    brand.map_or_else(|| "unnamed CPU".into(), |name| name.as_str().trim().to_string())
}

fn main() -> Result<(), fpu_x86::PlanError> {
    let best = Plan::detect_user(Components::all())?;
    let empty = least_of_nothing();
    println!("{}; {SAMPLES} saves, {ROWS} rows of {TRIPS} round trips; least / median", brand());
    println!();
    println!(
        "| instruction | bytes | in use | save | restore | round trip, branch | round trip, type |"
    );
    println!("|---|---:|---|---:|---:|---:|---:|");
    for rung in SaveInstruction::ALL {
        let plan = match rung {
            // SAFETY: C23: this program puts AVX registers back (`fill` is not asked for them).
            SaveInstruction::Fxsave => unsafe { Plan::detect_user_without(!Components::LEGACY) },
            _ => Ok(best.clone()),
        };
        let Ok(plan) = plan.and_then(|plan| plan.with_save_instruction(rung)) else { continue };
        for live in [Live::Nothing, Live::Avx, Live::Avx512] {
            let (name, needs) = match live {
                Live::Nothing => ("nothing", Components::empty()),
                Live::Avx => ("x87, AVX", Components::AVX),
                Live::Avx512 => ("x87, AVX-512", Components::AVX512),
            };
            if !plan.components().contains(needs) {
                continue;
            }
            let figures = match (plan.format(), rung) {
                (Format::Legacy, _) => measure::<FXSAVE>(&plan, live),
                (_, SaveInstruction::Xsavec) => measure::<XSAVEC>(&plan, live),
                (_, SaveInstruction::Xsaveopt) => measure::<XSAVEOPT>(&plan, live),
                _ => measure::<XSAVE>(&plan, live),
            };
            let [save, restore, branch, by_type] = figures;
            println!(
                "| {rung:?} | {} | {name} | {} | {} | {} | {} |",
                plan.area_len(),
                save.show(empty, 1),
                restore.show(empty, 1),
                branch.show(empty, TRIPS),
                by_type.show(empty, TRIPS)
            );
        }
    }
    // SAFETY: C23: this program asks for no permission to use tiles.
    let plan = unsafe { Plan::detect_user_without(Components::AMX) }?;
    let mut figures = Figures(Vec::with_capacity(ROWS));
    for _ in 0..ROWS {
        let from = count();
        // SAFETY: C26, C2: nothing here holds anything in the registers that it loads. C6: ring 3.
        let found = unsafe { black_box(&plan).measure() };
        figures.0.push(count() - from);
        assert_eq!(found, Ok(()));
    }
    println!();
    let (rung, bytes) = (plan.save_instruction(), plan.area_len());
    println!("Plan::measure, {rung:?}, {bytes} bytes: {}", figures.show(empty, 1));
    Ok(())
}
