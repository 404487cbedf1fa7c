//! A save and a restore of some components, as XSAVEC and XRSTOR do them.

use super::{
    super::layout::{format_of, get, put, ALL, FORMAT, HEADER_WORDS, PRESENT},
    SimFpu, ILLEGAL, INJECTED, TRAPPED,
};
use crate::sim::{Flaw, Registers, AREA_LEN, COMPONENTS, LAYOUT};
use core::ptr::NonNull;
use fpu_core::RestoreFault;
use std::hint::black_box;

/// # Safety
///
/// Valid area (C9).
unsafe fn illegal(area: NonNull<u8>, places: u64) -> bool {
    // SAFETY: the caller's valid area (C9); the header is inside the area.
    let header: [u64; HEADER_WORDS] = core::array::from_fn(|i| unsafe { get(area, i) });
    header[PRESENT] & !places != 0
        || header[FORMAT] != format_of(places)
        || header[2..].iter().any(|&reserved| reserved != 0)
        || LAYOUT.iter().enumerate().any(|(index, component)| {
            // SAFETY: the caller's valid area (C9); a component that is present is inside the area.
            let first = || unsafe { get(area, component.offset / 8) };
            header[PRESENT] >> index & 1 != 0 && first() & !component.legal != 0
        })
}

/// Does what XSAVEC and XRSTOR do, for the components of a set, with some of them disabled.
impl SimFpu {
    /// What is in use, of what is not disabled, is written; the others are absent.
    ///
    /// # Safety
    ///
    /// Valid area (C9), of an image with places for `set`.
    pub(in crate::sim) unsafe fn save_these(&self, area: NonNull<u8>, set: u64, disabled: u64) {
        self.line.step();
        if self.kernel_met_trap() {
            return;
        }
        let same_place = self.restored_from.get() == area.as_ptr() as usize
            || self.is(Flaw::ModifiedIgnoresAddress);
        let skip = if same_place { !self.modified.get() } else { 0 };
        let present = self.in_use.get() & set & !disabled;
        assert!(!(self.is(Flaw::SavePanics) && self.in_use.get() != ALL), "broken on purpose");
        for (index, component) in LAYOUT.iter().enumerate() {
            self.line.step();
            if present & !skip & 1 << index == 0
                || (self.is(Flaw::SaveSkipsComponent) && index == COMPONENTS - 1)
            {
                continue;
            }
            let all = self.registers.borrow();
            let torn = usize::from(self.is(Flaw::SaveTears) && index == 2);
            for (nth, &value) in all.component(index).iter().enumerate().skip(torn) {
                // SAFETY: the caller's valid area (C9); the component is inside the area.
                unsafe { put(area, component.offset / 8 + nth, value) };
            }
        }
        self.line.step();
        // SAFETY: the caller's valid area (C9); the header is inside the area; the word behind it is not, and the
        // test of `WritesBeyond` has room there.
        unsafe {
            if !self.is(Flaw::SaveForgetsHeader) {
                let kept = self.is(Flaw::SaveKeepsPresent).then(|| get(area, PRESENT));
                put(area, PRESENT, present | kept.unwrap_or(0));
            }
            put(area, FORMAT, format_of(set));
            if self.is(Flaw::WritesBeyond) {
                put(area, AREA_LEN / 8, 0);
            }
        }
        if self.is(Flaw::SaveClobbers) {
            self.write_one(2, 1, 0);
        }
        if self.is(Flaw::SaveAllocates) {
            drop(black_box(Box::new(self.in_use.get())));
        }
        self.line.step();
    }

    /// All components: those that are absent from an image with places for `places` become initial, disabled or not.
    ///
    /// # Safety
    ///
    /// Valid area (C9), of an image with places for `places`.
    pub(in crate::sim) unsafe fn restore_these(
        &self,
        area: NonNull<u8>,
        places: u64,
    ) -> Result<(), RestoreFault> {
        self.line.step();
        if self.kernel_met_trap() {
            return Err(TRAPPED);
        }
        let from = area.as_ptr() as usize;
        if self.is(Flaw::RestoreSkipsSameAddress) && self.restored_from.get() == from {
            return Ok(());
        }
        self.restored_from.set(0);
        // SAFETY: the caller's valid area (C9).
        let (refused, present) = unsafe { (illegal(area, places), get(area, PRESENT)) };
        if (refused && !self.is(Flaw::RestoreIgnoresFault))
            || self.broken.get()
            || (self.is(Flaw::RestoreRefusesInitial) && present == 0)
        {
            self.broken.set(self.is(Flaw::RestoreStaysBroken));
            if self.is(Flaw::RestoreWritesImage) {
                // SAFETY: the caller's valid area (C9).
                unsafe { put(area, PRESENT, present & ALL) };
            }
            self.undefined(from as u64);
            return Err(ILLEGAL);
        }
        let fails = match self.fail_in.get() {
            Some(nth) => {
                self.fail_in.set(nth.checked_sub(1).filter(|&left| left != 0));
                nth == 1
            }
            None => false,
        };
        let initial = Registers::initial();
        for (index, component) in LAYOUT.iter().enumerate() {
            self.line.step();
            if fails && index == COMPONENTS / 2 {
                self.undefined(from as u64);
                return Err(INJECTED);
            }
            if self.is(Flaw::RestoreSkipsComponent) && index == 0 {
                continue;
            }
            let there = present >> index & 1 != 0;
            if !there && self.is(Flaw::RestoreLeavesResidue) {
                continue;
            }
            // SAFETY: the caller's valid area (C9); the component is inside the area.
            let asks = self.is(Flaw::RestoreAsksTheBytes)
                && (0..component.words)
                    .any(|nth| unsafe { get(area, component.offset / 8 + nth) } != 0);
            let load = there || asks || self.is(Flaw::RestoreLoadsOldBytes);
            let mut all = self.registers.borrow_mut();
            for (nth, word) in all.component_mut(index).iter_mut().enumerate() {
                *word = if load {
                    // SAFETY: the caller's valid area (C9); the component is inside the area.
                    unsafe { get(area, component.offset / 8 + nth) }
                } else {
                    initial.component(index)[nth]
                };
            }
        }
        // SAFETY: the caller's valid area (C9), except for the writing.
        unsafe { self.spoil_restored(area) };
        self.in_use.set(present & ALL);
        self.modified.set(0);
        self.restored_from.set(from);
        self.line.step();
        Ok(())
    }
}
