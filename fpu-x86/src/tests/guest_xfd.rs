//! A guest's IA32_XFD beside a host whose tiles come on demand: the moves of `enter` and `exit`, the writes of a restore,
//! and a CPU that does what SDM vol. 1, 13.14 says. Every short sequence of what a guest and its host may do, against a
//! guest that has a CPU of its own; and hypervisors that do it wrong.

use core::cell::{Cell, RefCell};
use std::{format, rc::Rc, string::String, vec::Vec};

use fpu_core::{grow::GrowFpu, Area, RawFpu, RestoreFault, SaveArea};

use super::{
    moves::{enter, exit, GuestRefused, Host, Registers},
    GuestControls,
};
use crate::{
    components::Components,
    dynamic::{DynamicPlan, Room, XfdCopy},
    pkru::ProtectionKeys,
    tests::words::tiles,
};

const TILES: u64 = Components::TILEDATA.bits();
const WITH_TILES: u64 = 0x6_0007;

/// The registers of one CPU. One number stands for the tiles, 0 for their initial state.
#[derive(Default)]
struct Hardware {
    xcr0: Cell<u64>,
    xfd: Cell<u64>,
    xfd_err: Cell<u64>,
    tile: Cell<u8>,
    /// The host's copy of IA32_XFD.
    copy: Cell<u64>,
    writes: Cell<u64>,
    flaw: Option<Flaw>,
}

/// What a wrong hypervisor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    /// It saves the guest before the host's IA32_XFD is back.
    SavesUnderTheGuests,
    /// The guest changes IA32_XFD without exits, and nobody told `let_change_xfd`.
    TellsNobody,
    /// IA32_XFD is not written at the exit.
    KeepsTheGuests,
    /// IA32_XFD_ERR is not read at the exit.
    ForgetsTheError,
    /// IA32_XFD_ERR is not cleared for the host.
    LeavesTheError,
    /// The area with room is not loaded before the next entry.
    GrowsTooLate,
}

/// The copy of the plan, and the registers that it is a copy of.
#[derive(Clone)]
struct Shared(Rc<Hardware>);

// SAFETY: K20: cells of one test.
unsafe impl XfdCopy for Shared {
    fn get(&self) -> u64 {
        self.0.copy.get()
    }
    unsafe fn set(&self, xfd: u64) {
        self.0.copy.set(xfd);
    }
    unsafe fn write(&self, xfd: u64) -> Result<(), RestoreFault> {
        self.0.writes.set(self.0.writes.get() + 1);
        self.0.xfd.set(xfd);
        Ok(())
    }
    unsafe fn take_error(&self) -> u64 {
        self.0.xfd_err.take()
    }
}

impl Registers for Hardware {
    fn set_xcr0(&self, value: u64) -> u32 {
        self.xcr0.set(value);
        0
    }
    fn set_xss(&self, _: u64) -> u32 {
        0
    }
    fn xfd(&self) -> u64 {
        self.xfd.get()
    }
    fn set_xfd(&self, value: u64) -> u32 {
        self.writes.set(self.writes.get() + 1);
        self.xfd.set(value);
        0
    }
    fn xfd_err(&self) -> u64 {
        self.xfd_err.get()
    }
    fn set_xfd_err(&self, value: u64) -> u32 {
        self.xfd_err.set(value);
        0
    }
    fn pkru(&self) -> Option<u32> {
        None
    }
    fn set_pkru(&self, _: u32) {}
}

/// The registers as a flawed `exit` sees them.
struct AtExit<'h>(&'h Hardware);
impl Registers for AtExit<'_> {
    fn set_xcr0(&self, value: u64) -> u32 {
        self.0.set_xcr0(value)
    }
    fn set_xss(&self, value: u64) -> u32 {
        self.0.set_xss(value)
    }
    fn xfd(&self) -> u64 {
        self.0.xfd()
    }
    fn set_xfd(&self, value: u64) -> u32 {
        match self.0.flaw {
            Some(Flaw::KeepsTheGuests) => 0,
            _ => self.0.set_xfd(value),
        }
    }
    fn xfd_err(&self) -> u64 {
        match self.0.flaw {
            Some(Flaw::ForgetsTheError) => 0,
            _ => self.0.xfd_err(),
        }
    }
    fn set_xfd_err(&self, value: u64) -> u32 {
        match self.0.flaw {
            Some(Flaw::LeavesTheError) => 0,
            _ => self.0.set_xfd_err(value),
        }
    }
    fn pkru(&self) -> Option<u32> {
        None
    }
    fn set_pkru(&self, _: u32) {}
}

/// A context: an area of the plan, by which a restore tells its room, and its tiles in memory.
struct Context {
    area: RefCell<Area<16384>>,
    tile: Cell<u8>,
}

/// What a guest does between an entry and the exit.
#[derive(Clone, Copy, Debug)]
enum Does {
    Nothing,
    /// An instruction with tiles: they become this, or #NM.
    Uses(u8),
    /// WRMSR of IA32_XFD.
    SetsXfd(u64),
    /// WRMSR of 0 to IA32_XFD_ERR.
    ClearsError,
    /// XSETBV, which exits.
    SetsXcr0(u64),
}
const DOES: [Does; 8] = [
    Does::Nothing,
    Does::Uses(1),
    Does::Uses(2),
    Does::SetsXfd(0),
    Does::SetsXfd(TILES),
    Does::ClearsError,
    Does::SetsXcr0(7),
    Does::SetsXcr0(WITH_TILES),
];

/// What the host does between an exit and the next entry.
#[derive(Clone, Copy, Debug)]
enum Between {
    Nothing,
    /// A section saves the guest, and its registers are not the guest's any more.
    Section,
    /// Another thread runs here that has this room, and uses it.
    Thread(Room),
}
const BETWEEN: [Between; 4] =
    [Between::Nothing, Between::Section, Between::Thread(Room::Base), Between::Thread(Room::Full)];

/// The guest with a CPU of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Alone {
    xcr0: u64,
    xfd: u64,
    xfd_err: u64,
    tile: u8,
}

impl Alone {
    fn does(&mut self, does: Does) {
        match does {
            Does::Uses(value) if self.xcr0 & TILES != 0 => match self.xfd & TILES {
                0 => self.tile = value,
                bits => self.xfd_err = bits,
            },
            Does::Nothing | Does::Uses(_) => {}
            Does::SetsXfd(value) => self.xfd = value,
            Does::ClearsError => self.xfd_err = 0,
            Does::SetsXcr0(value) => self.xcr0 = value,
        }
    }
}

/// One plan on one CPU.
struct World {
    plan: DynamicPlan<Shared>,
    hardware: Rc<Hardware>,
    guest: Context,
    threads: [Context; 2],
    /// The guest's registers are in the CPU.
    loaded: Cell<bool>,
    grown: Cell<u32>,
}

type Found = Result<(), String>;

impl World {
    fn new(flaw: Option<Flaw>) -> Self {
        let words = tiles().with(0xD, 1, [0x1F, 10752, 0, 0]);
        let full = words.kernel(Components::USER).unwrap();
        let hardware = Hardware { flaw, ..Hardware::default() };
        hardware.xcr0.set(full.xcr0().bits());
        hardware.copy.set(u64::MAX);
        let hardware = Rc::new(hardware);
        let plan = DynamicPlan::new(full, Shared(hardware.clone())).unwrap();
        assert_eq!(plan.on_demand().bits(), TILES);
        let context = |room, tile| {
            let area = Area::new();
            // SAFETY: C9: an area of the test's own, larger than any.
            unsafe { plan.write_initial(area.base()) };
            let area = if room == Room::Full { moved(&plan, &area) } else { area };
            Context { area: RefCell::new(area), tile: Cell::new(tile) }
        };
        let guest = context(Room::Base, 0);
        let threads = [context(Room::Base, 0), context(Room::Full, 9)];
        let (loaded, grown) = (Cell::new(false), Cell::new(0));
        Self { plan, hardware, guest, threads, loaded, grown }
    }
    /// As it was made.
    fn reset(&self) {
        let on = &self.hardware;
        on.xcr0.set(self.plan.plan().xcr0().bits());
        on.copy.set(u64::MAX);
        for register in [&on.xfd, &on.xfd_err] {
            register.set(0);
        }
        on.tile.set(0);
        // SAFETY: C9: an area of the test's own, larger than any.
        unsafe { self.plan.write_initial(self.guest.area.borrow().base()) };
        self.guest.tile.set(0);
        self.loaded.set(false);
        self.grown.set(0);
    }
    fn room(&self, context: &Context) -> Room {
        // SAFETY: C9: an area of the test's own, which holds an image.
        unsafe { self.plan.room(context.area.borrow().base()) }
    }
    /// The host's registers, as each save and restore must find them.
    fn host_is_in_force(&self) -> Found {
        let on = &self.hardware;
        let state = (on.xcr0.get(), on.xfd_err.get(), on.xfd.get() == on.copy.get());
        let host = (self.plan.plan().xcr0().bits(), 0, true);
        let unknown = on.copy.get() == u64::MAX;
        if state != host && !unknown {
            return Err(format!("the host finds XCR0, error and copy {state:x?}"));
        }
        Ok(())
    }
    fn restore(&self, context: &Context) -> Found {
        self.host_is_in_force()?;
        // SAFETY: C9: an area of the test's own. C10: IA32_XFD is a cell. It is what a restore does first.
        unsafe { self.plan.adopt(context.area.borrow().base()) }.unwrap();
        let tile = context.tile.get();
        if tile != 0 && self.hardware.xfd.get() & TILES != 0 {
            return Err("the host's restore raises #NM".into());
        }
        self.hardware.tile.set(tile);
        Ok(())
    }
    fn save(&self, context: &Context) -> Found {
        self.host_is_in_force()?;
        let (on, base) = (&self.hardware, self.room(context) == Room::Base);
        let disabled = on.xfd.get() & TILES != 0;
        // A save without a place for the tiles, or under an IA32_XFD that disables them, leaves them out.
        context.tile.set(if base || disabled { 0 } else { on.tile.get() });
        Ok(())
    }
    /// The loop of a hypervisor, up to the entry.
    fn enters(&self, controls: &GuestControls) -> Result<Host, String> {
        for _ in 0..2 {
            if !self.loaded.replace(true) {
                self.restore(&self.guest)?;
            }
            self.host_is_in_force()?;
            match enter(&*self.hardware, self.plan.plan(), controls) {
                Ok(host) => return Ok(host),
                Err(GuestRefused::NoRoom(bits)) if bits.bits() == TILES => {
                    self.save(&self.guest)?;
                    let new = moved(&self.plan, &self.guest.area.borrow());
                    *self.guest.area.borrow_mut() = new;
                    let late = self.hardware.flaw == Some(Flaw::GrowsTooLate);
                    self.loaded.set(late);
                    self.grown.set(self.grown.get() + 1);
                }
                Err(why) => return Err(format!("{why}")),
            }
        }
        Err("the guest does not get in".into())
    }
    fn between(&self, what: Between) -> Found {
        if let Between::Nothing = what {
            return Ok(());
        }
        if self.loaded.replace(false) {
            self.save(&self.guest)?;
        }
        if let Between::Thread(room) = what {
            let thread = &self.threads[usize::from(room == Room::Full)];
            self.restore(thread)?;
            let expected = if room == Room::Full { 9 } else { 0 };
            if self.hardware.tile.get() != expected {
                return Err(format!("a thread finds tiles {}", self.hardware.tile.get()));
            }
            self.save(thread)?;
        }
        Ok(())
    }

    /// The guest does `steps`, one between each entry and exit, and the host what stands beside them.
    fn runs(&self, without_exit: bool, start: &Alone, steps: &[(Does, Between)]) -> Found {
        let keys = ProtectionKeys::new();
        let plan = self.plan.plan();
        let mut alone = start.clone();
        let mut controls = GuestControls::new();
        controls.set_xcr0(plan, &keys, alone.xcr0).unwrap();
        controls.set_xfd(plan, alone.xfd).unwrap();
        let told = without_exit && self.hardware.flaw != Some(Flaw::TellsNobody);
        controls.let_change_xfd(told);
        // One entry more, in which the guest looks.
        let last = [(Does::Nothing, Between::Nothing)];
        for (does, between) in steps.iter().chain(&last) {
            let host = self.enters(&controls)?;
            let on = &self.hardware;
            let seen = Alone {
                xcr0: on.xcr0.get(),
                xfd: on.xfd.get(),
                xfd_err: on.xfd_err.get(),
                tile: on.tile.get(),
            };
            if seen != alone {
                return Err(format!("the guest finds {seen:x?}, alone it has {alone:x?}"));
            }
            // What does not exit happens on this CPU's registers.
            let exits = match does {
                Does::SetsXcr0(_) => true,
                Does::SetsXfd(_) | Does::ClearsError => !without_exit,
                Does::Nothing | Does::Uses(_) => false,
            };
            if !exits {
                let mut inside = seen;
                inside.does(*does);
                on.xfd.set(inside.xfd);
                on.xfd_err.set(inside.xfd_err);
                on.tile.set(inside.tile);
            }
            alone.does(*does);
            if self.hardware.flaw == Some(Flaw::SavesUnderTheGuests) && self.loaded.get() {
                self.loaded.set(false);
                let disabled = on.xfd.get() & TILES != 0;
                self.guest.tile.set(if disabled { 0 } else { on.tile.get() });
            }
            exit(&AtExit(on), &host, &mut controls);
            self.host_is_in_force()?;
            if exits {
                let done = match *does {
                    Does::SetsXcr0(value) => controls.set_xcr0(plan, &keys, value),
                    Does::SetsXfd(value) => controls.set_xfd(plan, value),
                    _ => controls.set_xfd_err(plan, 0),
                };
                done.map_err(|why| format!("{why}"))?;
            }
            if (controls.xfd().bits(), controls.xfd_err().bits()) != (alone.xfd, alone.xfd_err) {
                return Err(format!("read back {controls:x?}, alone it has {alone:x?}"));
            }
            self.between(*between)?;
        }
        Ok(())
    }
}

fn moved(plan: &DynamicPlan<Shared>, from: &Area<16384>) -> Area<16384> {
    let new = Area::new();
    // SAFETY: C9: two areas of the test's own; `from` holds an image.
    unsafe { plan.move_image(from.base(), new.base(), Room::Full) }.unwrap();
    new
}

/// All starts, and all sequences of so many steps.
fn every(flaw: Option<Flaw>, length: u32) -> (u32, u32, Found) {
    let choices: Vec<(Does, Between)> =
        DOES.iter().flat_map(|does| BETWEEN.iter().map(|what| (*does, *what))).collect();
    let (world, mut runs, mut grown) = (World::new(flaw), 0, 0);
    for without_exit in [false, true] {
        for xcr0 in [7, WITH_TILES] {
            for xfd in [0, TILES] {
                for number in 0..choices.len().pow(length) {
                    let mut rest = number;
                    let mut next = || {
                        let choice = choices[rest % choices.len()];
                        rest /= choices.len();
                        choice
                    };
                    let steps: Vec<_> = (0..length).map(|_| next()).collect();
                    world.reset();
                    let start = Alone { xcr0, xfd, xfd_err: 0, tile: 0 };
                    let found = world.runs(without_exit, &start, &steps);
                    if let Err(why) = found {
                        let what = format!("{why}: {without_exit}, {start:x?}, {steps:x?}");
                        return (runs, grown, Err(what));
                    }
                    // Room only for who could use it, once.
                    let mut could = start.clone();
                    let used = |one: &Alone| {
                        one.xcr0 & TILES != 0 && (without_exit || one.xfd & TILES == 0)
                    };
                    let mut due = used(&could);
                    for (does, _) in &steps {
                        could.does(*does);
                        due |= used(&could);
                    }
                    assert_eq!(world.grown.get(), u32::from(due), "{start:x?}, {steps:x?}");
                    runs += 1;
                    grown += world.grown.get();
                }
            }
        }
    }
    (runs, grown, Ok(()))
}

/// Every sequence of three steps, from each start: the guest finds what it would find alone; each save and restore finds
/// the host's registers, and no restore raises #NM; and an area with room is given to whom it is due, once.
#[test]
fn a_guest_with_xfd_finds_what_it_would_find_alone() {
    let (runs, grown, found) = every(None, 3);
    assert_eq!(found, Ok(()));
    assert_eq!(runs, 8 * 32 * 32 * 32);
    assert!(grown > runs / 4 && grown < runs, "{grown} of {runs}");
}

#[test]
fn hypervisors_that_mistake_xfd_are_noticed() {
    for flaw in [
        Flaw::SavesUnderTheGuests,
        Flaw::TellsNobody,
        Flaw::KeepsTheGuests,
        Flaw::ForgetsTheError,
        Flaw::LeavesTheError,
        Flaw::GrowsTooLate,
    ] {
        let (.., found) = every(Some(flaw), 3);
        std::println!("{flaw:?}: {found:?}");
        assert!(found.is_err(), "{flaw:?} is not noticed");
    }
}

/// What a guest's IA32_XFD costs: a write at the entry and one at the exit where it differs from the host's, and none else.
#[test]
fn xfd_is_written_where_guest_and_host_differ() {
    for (room, xfd, writes) in
        [(Room::Full, 0, 0), (Room::Full, TILES, 2), (Room::Base, TILES, 0), (Room::Base, 0, 2)]
    {
        let world = World::new(None);
        if room == Room::Full {
            let new = moved(&world.plan, &world.guest.area.borrow());
            *world.guest.area.borrow_mut() = new;
        }
        world.restore(&world.guest).unwrap();
        world.loaded.set(true);
        let before = world.hardware.writes.get();
        let mut controls = GuestControls::new();
        controls.set_xfd(world.plan.plan(), xfd).unwrap();
        let host = world.enters(&controls).unwrap();
        exit(&*world.hardware, &host, &mut controls);
        assert_eq!(world.hardware.writes.get() - before, writes, "{room:?} {xfd:#x}");
    }
}
