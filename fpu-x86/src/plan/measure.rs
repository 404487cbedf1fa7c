//! Measures whether a CPU saves what the plan says, where the plan says.
//!
//! One component after the other is loaded with bytes that are known, and saved by the plan's instruction into
//! poisoned memory. The component must lie where the layout has it, and the CPU may write nothing behind the
//! area. So the area is large enough and laid out right, whatever CPUID says. Then all are in use at
//! once.
//!
//! Loading is by XRSTOR from an image that the layout makes, not by each component's own instructions: those
//! can be missing although XCR0 has the component. XRSTOR shows as much: a CPU that has the component
//! elsewhere loads other bytes, saves those bytes elsewhere, and leaves at least one byte of the place here
//! as it was.

use core::{
    cell::UnsafeCell,
    hint,
    sync::atomic::{AtomicBool, Ordering},
};

use super::Plan;
use crate::{
    components::{extended, one, Components},
    error::Measured,
    fields::{
        self, COMPACTED, FCW, INITIAL_FCW, INITIAL_MXCSR, MXCSR, MXCSR_MASK, ST, TAG, XCOMP_BV,
        XMM, XMM_END, XSTATE_BV,
    },
    insn,
    layout::EXTENDED,
    save_instruction::{Format, SaveInstruction},
};

/// The largest area that can be tried, in bytes: that of every component which plans switch.
const MOST: usize = 11_264;
/// The number of bytes behind an area that are watched at least.
const GUARD: usize = 2048;

/// The bytes of an image where no component is.
const FILL: u8 = 0x5A;
/// The bytes of memory before a save.
const POISON: u8 = 0xA5;

/// The image that is loaded, and what is saved. Not on the stack, which is small in a kernel.
#[repr(C, align(64))]
struct Memory {
    image: [u8; MOST],
    area: [u8; MOST + GUARD],
}

// The area is aligned as the image is.
const _: () = assert!(MOST % 64 == 0);

/// The memory of a measurement. One CPU uses it at a time.
struct Shared {
    taken: AtomicBool,
    memory: UnsafeCell<Memory>,
}

// SAFETY: rests on no duty: `with` gives the memory to one at a time.
unsafe impl Sync for Shared {}

static SHARED: Shared = Shared {
    taken: AtomicBool::new(false),
    memory: UnsafeCell::new(Memory { image: [0; MOST], area: [0; MOST + GUARD] }),
};

impl Shared {
    /// Waits while another CPU is being set up.
    fn with<R>(&self, use_it: impl FnOnce(&mut Memory) -> R) -> R {
        while self.taken.swap(true, Ordering::Acquire) {
            hint::spin_loop();
        }
        // SAFETY: `taken` was clear and is set until the reference has been used.
        let result = use_it(unsafe { &mut *self.memory.get() });
        self.taken.store(false, Ordering::Release);
        result
    }
}

/// Byte `at` of a component: not 0, the filling or the poison, and another one next to it.
fn pattern(number: u32, at: usize) -> u8 {
    let byte = (at * 7 + at / 256 * 3 + number as usize * 29 + 13) as u8;
    match byte {
        0 | FILL | POISON => byte ^ 0x81,
        byte => byte,
    }
}

/// The registers of the components that do not take any bytes, in a state which every restore accepts and
/// which is not the initial one.
fn words(number: u32) -> &'static [u64] {
    match number {
        // BNDCFGU, not enabled; BNDSTATUS.
        4 => &[0x0000_1234_5678_9002, 0x0000_1357_9BDF_2461],
        // IA32_PASID: valid.
        10 => &[0x800A_1B2C],
        // IA32_U_CET: shadow stacks may be written; IA32_PL3_SSP.
        11 => &[2, 0x0000_1357_9BDF_2468],
        // IA32_PL0_SSP to IA32_PL2_SSP.
        12 => &[0x0000_1357_9BDF_2468, 0x0000_2468_ACE0_1358, 0x0000_3579_BDF1_2468],
        // Palette 1: eight tiles of 16 rows of 64 bytes, which is all of TILEDATA.
        17 => &[1, 0, 0x0040_0040_0040_0040, 0x0040_0040_0040_0040, 0, 0, 0x1010_1010_1010_1010, 0],
        _ => &[],
    }
}

/// Byte `at` of an extended component that is present.
fn state(number: u32, at: usize) -> u8 {
    match words(number) {
        [] => pattern(number, at),
        words => words.get(at / 8).map_or(0, |word| (word >> (at % 8 * 8)) as u8),
    }
}

/// Bytes of a place of `size` that are registers, so that a save writes them as they are.
fn registers(number: u32, size: usize) -> usize {
    match words(number) {
        [] => size,
        words => size.min(8 * words.len()),
    }
}

/// The legacy area: MXCSR always, as a restore in the standard format loads it; x87 and SSE if present.
fn write_legacy(image: &mut [u8], present: Components, mxcsr_mask: u32) {
    const TAGS_FULL: u8 = 0xFF;
    // FXRSTOR loads all of it, present or not.
    fields::clear(image, 0, XSTATE_BV);
    fields::set(image, FCW, INITIAL_FCW.to_le_bytes());
    fields::set(image, MXCSR, INITIAL_MXCSR.to_le_bytes());
    fields::set(image, MXCSR_MASK, mxcsr_mask.to_le_bytes());
    if present.contains(Components::X87) {
        fields::set(image, FCW, LOADED_FCW.to_le_bytes());
        fields::set(image, TAG, [TAGS_FULL]);
        for at in x87_bytes() {
            fields::set(image, at, [x87_pattern(at)]);
        }
    }
    if present.contains(Components::SSE) {
        fields::set(image, MXCSR, LOADED_MXCSR.to_le_bytes());
        for at in XMM..XMM_END {
            fields::set(image, at, [pattern(1, at)]);
        }
    }
}

/// Double precision, all exceptions masked.
const LOADED_FCW: u16 = 0x27F;
/// Rounding down, all exceptions masked.
const LOADED_MXCSR: u32 = 0x3F80;

/// The ten bytes of each of the eight registers, of sixteen.
fn x87_bytes() -> impl Iterator<Item = usize> {
    (ST..XMM).filter(|at| (at - ST) % 16 < 10)
}

/// Byte `at` of an x87 register: a number that double precision holds too, because some emulators keep no more.
fn x87_pattern(at: usize) -> u8 {
    match (at - ST) % 16 {
        0 => 0,
        1 => pattern(0, at) & 0xF8,
        7 => pattern(0, at) | 0x80,
        8 => 0xFF,
        9 => 0x3F,
        _ => pattern(0, at),
    }
}

/// The first byte of x87 or SSE that is not as `write_legacy` wrote it.
fn first_wrong_of_legacy(area: &[u8], present: Components) -> Option<(Components, usize)> {
    let word = |at, value: u32| fields::u32_at(area, at) != value;
    let x87 = || {
        if fields::u16_at(area, FCW) != LOADED_FCW {
            return Some(FCW);
        }
        x87_bytes().find(|at| area.get(*at) != Some(&x87_pattern(*at)))
    };
    let sse = || {
        if word(MXCSR, LOADED_MXCSR) {
            return Some(MXCSR);
        }
        (XMM..XMM_END).find(|at| area.get(*at) != Some(&pattern(1, *at)))
    };
    let wrong = |component, find: &dyn Fn() -> Option<usize>| {
        if present.contains(component) {
            find().map(|at| (component, at))
        } else {
            None
        }
    };
    wrong(Components::X87, &x87).or_else(|| wrong(Components::SSE, &sse))
}

impl Plan {
    /// Tries whether this CPU saves each component of the plan where the plan's layout has it, and nothing else;
    /// the registers are in their initial state afterwards.
    ///
    /// [`settle_on_this_cpu`](Self::settle_on_this_cpu) and
    /// [`enable_on_this_cpu`](Self::enable_on_this_cpu) do it. For a plan for ring 3, the call shows the same
    /// for the system that the program runs on.
    ///
    /// It uses 24 KiB of memory of this crate's own, none of them stack, and waits while another CPU measures. A CPU
    /// that stops within the measurement stops the others. How long it takes: see the crate documentation.
    ///
    /// A CPU that saved a component further than 13,312 bytes from the area's beginning would write behind the guard.
    /// Of the components that plans hold none is known that ends behind byte 11,136.
    ///
    /// # Errors
    ///
    /// The first thing that is not as it should be. Faults become errors if the handlers serve
    /// [`fixup`](crate::fixup).
    ///
    /// # Safety
    ///
    /// * **C26** nothing moves the caller to another CPU or interrupts it until the call has returned; in ring 3,
    ///   no code that would notice what the registers hold.
    /// * **C2** no code needs what this CPU's registers hold.
    /// * **C6** XCR0, and for a plan for ring 0 IA32_XSS, hold what the plan says; IA32_XFD disables none of its
    ///   components.
    ///
    /// ```
    /// use fpu_x86::{Components, Plan};
    /// // SAFETY: C23, C6: no permission to use tiles was asked for. C26, C2: no code holds vector registers here.
    /// let plan = unsafe { Plan::detect_user_without(Components::AMX) }?;
    /// assert_eq!(unsafe { plan.measure() }, Ok(()));
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    pub unsafe fn measure(&self) -> Result<(), Measured> {
        if let Some(component) = self.largest_beyond(MOST) {
            return Err(Measured::TooLarge { component });
        }
        SHARED.with(|memory| {
            // SAFETY: undisturbed (C26), registers not needed (C2), components on (C6) of this function.
            let found = unsafe { self.measure_all(memory) };
            // All initial again, and after an error too: a component that is then left out must not keep the
            // pattern, which no later restore would take away. XSTATE_BV is 0, so the layout does not matter.
            // SAFETY: undisturbed (C26), registers not needed (C2), components on (C6) of this function; XSTATE_BV is
            // 0.
            let initial = unsafe { self.measure_with(Components::empty(), memory) };
            found.and(initial)
        })
    }

    /// Each component alone, then all.
    ///
    /// # Safety
    ///
    /// As for [`measure`](Self::measure).
    unsafe fn measure_all(&self, memory: &mut Memory) -> Result<(), Measured> {
        let tried = self.components().difference(self.trusted);
        for number in tried.numbers() {
            // The CPU may take tiles without a configuration for initial.
            let with =
                if one(number) == Components::TILEDATA { Components::AMX } else { one(number) };
            // SAFETY: undisturbed (C26), registers not needed (C2), components on (C6) of the caller.
            unsafe { self.measure_with(with, memory) }?;
        }
        // SAFETY: undisturbed (C26), registers not needed (C2), components on (C6) of the caller.
        unsafe { self.measure_with(tried, memory) }
    }

    /// The component that ends last, if it ends behind `most`.
    fn largest_beyond(&self, most: usize) -> Option<Components> {
        if self.layout.len() <= most {
            return None;
        }
        let end =
            |number: &u32| self.layout.slot(*number).map_or(0, |slot| slot.offset + slot.size);
        extended(self.components()).max_by_key(end).map(one)
    }

    /// One load and one save.
    ///
    /// # Safety
    ///
    /// As for [`measure`](Self::measure).
    unsafe fn measure_with(
        &self,
        present: Components,
        memory: &mut Memory,
    ) -> Result<(), Measured> {
        memory.image.fill(FILL);
        memory.area.fill(POISON);
        write_legacy(&mut memory.image, present, self.mxcsr_mask());
        if self.format() != Format::Legacy {
            let (from, to) = (XSTATE_BV, EXTENDED as usize);
            for bytes in [&mut memory.image[from..to], &mut memory.area[from..to]] {
                bytes.fill(0);
            }
            fields::set(&mut memory.image, XSTATE_BV, present.bits().to_le_bytes());
        }
        if self.format() == Format::Compacted {
            let xcomp_bv = COMPACTED | self.mask;
            fields::set(&mut memory.image, XCOMP_BV, xcomp_bv.to_le_bytes());
        }
        for number in extended(present) {
            let Some((start, end)) = self.bounds(number) else { continue };
            for (at, byte) in memory.image.iter_mut().take(end).skip(start).enumerate() {
                *byte = state(number, at);
            }
        }
        let (image, area, mask) = (memory.image.as_ptr(), memory.area.as_mut_ptr(), self.mask);
        // SAFETY: N1: both are aligned to 64, and at least as large as the layout (`largest_beyond`), with a guard
        // behind; components on (C6). N2: registers not needed (C2), and the function says that it changes the
        // registers. So for all. Direct calls, so that a kernel's checks can follow them.
        let answers = unsafe {
            match self.save_instruction() {
                SaveInstruction::Xsaves => insn::xrstors_xsaves(image, area, mask),
                SaveInstruction::Xsavec => insn::xrstor_xsavec(image, area, mask),
                SaveInstruction::Xsaveopt => insn::xrstor_xsaveopt(image, area, mask),
                SaveInstruction::Xsave => insn::xrstor_xsave(image, area, mask),
                SaveInstruction::Fxsave => insn::fxrstor_fxsave(image, area, mask),
            }
        };
        match answers {
            (0, _) => self.check_saved(present, &memory.area),
            (answer, 0) => Err(Measured::RestoreFault { vector: insn::vector_of(answer), present }),
            (answer, _) => Err(Measured::SaveFault { vector: insn::vector_of(answer) }),
        }
    }

    /// The first byte of an extended component, and the first behind it.
    fn bounds(&self, number: u32) -> Option<(usize, usize)> {
        let slot = self.layout.slot(number)?;
        Some((slot.offset as usize, (slot.offset + slot.size) as usize))
    }

    /// The extended component that comes next, from a byte on.
    fn next(&self, from: usize) -> Option<(u32, usize, usize)> {
        let place = |number| self.bounds(number).map(|(start, end)| (number, start, end));
        let behind = extended(self.components()).filter_map(place).filter(|it| it.1 >= from);
        behind.min_by_key(|it| it.1)
    }

    /// Checks what the save has written.
    fn check_saved(&self, present: Components, area: &[u8]) -> Result<(), Measured> {
        if let Some((component, at)) = first_wrong_of_legacy(area, present) {
            return Err(Measured::Elsewhere { component, at: at as u32 });
        }
        let mut from = XSTATE_BV;
        if self.format() != Format::Legacy {
            // The bits of what is present; others can be set of what is initial.
            let xstate_bv = Components::from_bits_retain(fields::u64_at(area, XSTATE_BV));
            let missing = present.difference(xstate_bv);
            if !missing.is_empty() {
                return Err(Measured::Absent { missing });
            }
            let xcomp_bv = match self.format() {
                Format::Compacted => COMPACTED | self.mask,
                _ => 0,
            };
            let reserved = area.iter().take(EXTENDED as usize).skip(XCOMP_BV + 8);
            if !self.components().contains(xstate_bv)
                || fields::u64_at(area, XCOMP_BV) != xcomp_bv
                || reserved.clone().any(|byte| *byte != 0)
            {
                return Err(Measured::Header { present });
            }
            from = EXTENDED as usize;
        }
        // What is not present is poison still, or initial and so zero; so is what lies between components.
        let written = |from: usize, to: usize| {
            let found =
                area.iter().take(to).skip(from).position(|byte| ![0, POISON].contains(byte));
            found.map_or(Ok(()), |at| Err(Measured::Outside { present, at: (from + at) as u32 }))
        };
        while let Some((number, start, end)) = self.next(from) {
            if present.contains(one(number)) {
                let registers_end = start + registers(number, end - start);
                let place = area.iter().take(registers_end).skip(start);
                if let Some(at) =
                    place.enumerate().position(|(at, byte)| *byte != state(number, at))
                {
                    return Err(Measured::Elsewhere {
                        component: one(number),
                        at: (start + at) as u32,
                    });
                }
                written(from, start)?;
            } else {
                written(from, end)?;
            }
            from = end;
        }
        // Behind the area nothing is written.
        match area.iter().skip(from).position(|byte| *byte != POISON) {
            None => Ok(()),
            Some(at) => Err(Measured::Outside { present, at: (from + at) as u32 }),
        }
    }
}

#[cfg(test)]
#[path = "../tests/measure.rs"]
mod tests;
