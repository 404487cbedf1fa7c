//! The plan with state on demand as a backend of `fpu-core`.

use core::ptr::NonNull;

use super::{DynamicPlan, Room, XfdCopy};
use crate::{
    components::Components,
    image::{Image, ImageMut, NOT_INHERITED},
    insn,
    layout::{self, EXTENDED},
};
use fpu_core::{
    grow::{GrowFpu, NoRoom},
    verify::{CompareFpu, Difference},
    IdleFpu, KernelUnits, RawFpu, RestoreFault,
};

// SAFETY: B1, B13: a save to an area is that of the plan for the room that the area names, whose places `with` computed; an
// area of `area_len` bytes names the least, as `write_initial` and `copy_for_child` leave it. B2: the components without
// room are initial while the registers are that area's, because IA32_XFD disables them (B15; of a program, rest stays
// initial by C46). B3: a restore is of all components of the full plan, those without a place in the image to their initial
// state. B4: what WRMSR or the restore refuses is returned. B5: no image without room for a component has its bit of
// XSTATE_BV, and IA32_XFD is clear before one with room is restored. B6: no wait, no allocation; the copy of IA32_XFD is the
// CPU's own. B7: that of `Plan`, which skips nothing here.
unsafe impl<X: XfdCopy> RawFpu for DynamicPlan<X> {
    type Image<'a>
        = Image<'a>
    where
        X: 'a;
    type ImageMut<'a>
        = ImageMut<'a>
    where
        X: 'a;

    fn area_len(&self) -> usize {
        Self::area_len(self)
    }
    #[inline]
    unsafe fn image_len(&self, area: NonNull<u8>) -> usize {
        // SAFETY: valid area (C9).
        self.area_len_of(unsafe { Room::of(area) })
    }
    fn area_align(&self) -> usize {
        layout::ALIGN
    }

    #[inline]
    fn prefetch(&self, area: NonNull<u8>) {
        self.base.prefetch(area);
    }

    unsafe fn write_initial(&self, area: NonNull<u8>) {
        // SAFETY: valid area (C9) for the base plan. It leaves software's bytes zero, so the area has the least room.
        unsafe { self.base.write_initial(area) }
    }

    #[inline]
    unsafe fn save(&self, area: NonNull<u8>) {
        // SAFETY: valid area (C9) of the room that it names (B13); registers free (C10).
        unsafe {
            match Room::of(area) {
                Room::Base => self.base.save(area),
                Room::Full => self.full.save(area),
            }
        }
    }

    #[inline]
    unsafe fn restore(&self, area: NonNull<u8>) -> Result<(), RestoreFault> {
        // SAFETY: valid area (C9). C10: nothing is in the registers that code needs.
        unsafe {
            self.let_use(Room::of(area))?;
            // All components, whatever the area has room for: XSTATE_BV and XCOMP_BV say what is read of it.
            self.full.load_always(area)
        }
    }

    unsafe fn adopt(&self, area: NonNull<u8>) -> Result<(), RestoreFault> {
        // SAFETY: valid area (C9) and registers free (C10).
        unsafe { self.let_use(Room::of(area)) }
    }

    #[inline]
    unsafe fn kernel_defaults(&self, units: KernelUnits) {
        // SAFETY: the caller's registers free (C10).
        unsafe { self.full.kernel_defaults(units) }
    }

    unsafe fn copy_for_child(&self, from: NonNull<u8>, to: NonNull<u8>) {
        // SAFETY: valid area (C9) of `to`.
        unsafe { self.write_initial(to) };
        // SAFETY: valid area (C9) of both, not overlapping; `to` was just written.
        let (from, mut to) = unsafe { (self.image(from), self.image_mut(to)) };
        let all = !NOT_INHERITED;
        let done = to.import(&from, all.difference(self.on_demand), all);
        debug_assert!(done.is_ok(), "what is not on demand has a place in every area");
    }

    unsafe fn image<'a>(&'a self, area: NonNull<u8>) -> Image<'a> {
        // SAFETY: valid area (C9) of the room that it names (B13), no other writer (C11).
        unsafe { self.plan_of(Room::of(area)).image(area) }
    }

    unsafe fn image_mut<'a>(&'a self, area: NonNull<u8>) -> ImageMut<'a> {
        // SAFETY: valid area (C9) of the room that it names (B13), no other writer (C11); a view does not reach software's
        // bytes.
        unsafe { self.plan_of(Room::of(area)).image_mut(area) }
    }
}

// SAFETY: B13: the room is in bytes that no save writes, and `save`, `restore` and the views go by it. B14: `import` takes
// every component of `from`, absent ones as initial, or refuses before it writes. B15: a restore and `adopt` write IA32_XFD
// before the registers are the area's; in a program no code uses what is on demand (C46).
unsafe impl<X: XfdCopy> GrowFpu for DynamicPlan<X> {
    type Room = Room;

    fn room_len(&self, room: Room) -> usize {
        self.area_len_of(room)
    }

    unsafe fn room(&self, area: NonNull<u8>) -> Room {
        // SAFETY: valid area (C9).
        unsafe { Room::of(area) }
    }

    unsafe fn move_image(
        &self,
        from: NonNull<u8>,
        to: NonNull<u8>,
        room: Room,
    ) -> Result<(), NoRoom> {
        let plan = self.plan_of(room);
        // SAFETY: valid area (C9) of both, not overlapping, `to` of that room's bytes.
        let from = unsafe {
            plan.write_initial(to);
            self.image(from)
        };
        // SAFETY: valid area (C9) of that room's bytes; `to` was just written, and no other code has it.
        let mut image = unsafe { plan.image_mut(to) };
        let every = Components::from_bits_retain(u64::MAX);
        image.import(&from, every, every).map_err(|_| NoRoom)?;
        image.set_room(|bytes| room.write(bytes));
        Ok(())
    }
}

// SAFETY: B8: the views read, each within its room. B9, B10: those of `Plan`; where one has room for what the other has
// not, that is compared with its initial value.
unsafe impl<X: XfdCopy> CompareFpu for DynamicPlan<X> {
    unsafe fn same_state(&self, one: NonNull<u8>, other: NonNull<u8>) -> Result<(), Difference> {
        // SAFETY: valid area (C9), no other writer (C11) of both.
        let (of_one, of_other) = unsafe { (self.image(one), self.image(other)) };
        of_one.same_state(&of_other)?;
        // What only the other one has a place for, it went by.
        for number in self.numbers() {
            if !of_one.plan().components().contains(crate::components::one(number))
                && !of_other.is_initial(number)
            {
                return Err(Difference { component: number, offset: EXTENDED });
            }
        }
        Ok(())
    }
}

// SAFETY: B11: that of `Plan`. B12: where tiles are disabled, XRSTOR of an image without any component initialises AMX's two
// and nothing else (SDM vol. 1, 13.8; 13.14: a disabled component can be initialised); where they are not, that of `Plan`.
unsafe impl<X: XfdCopy> IdleFpu for DynamicPlan<X> {
    unsafe fn keeps_awake(&self) -> bool {
        // SAFETY: registers free (C10).
        unsafe { self.full.keeps_awake() }
    }

    unsafe fn release(&self) {
        #[repr(C, align(64))]
        struct Empty([u8; EXTENDED as usize]);
        static EMPTY: Empty = Empty([0; EXTENDED as usize]);
        if self.allows(Components::TILEDATA) {
            // SAFETY: registers free (C10), and IA32_XFD disables no tiles.
            return unsafe { self.full.release() };
        }
        let amx = self.full.components().intersection(Components::AMX).bits();
        // SAFETY: N1: a plan with AMX has XRSTOR; the header says that no component is present, so nothing behind it is
        // read. N2: registers free (C10).
        let answer = unsafe { insn::xrstor(EMPTY.0.as_ptr(), amx) };
        debug_assert!(answer == 0, "an empty image is refused");
    }
}
