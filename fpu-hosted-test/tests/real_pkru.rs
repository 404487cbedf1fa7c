//! PKRU's moves by RDPKRU and WRPKRU, and what the system's own accesses to memory of a key then may do.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use core::{arch::asm, ptr};

use fpu_core::{Area, RawFpu, SaveArea};
use fpu_hosted_test::{
    doc::{new_task, stop},
    Random,
};
use fpu_x86::{
    Components, KeyRights, Pkru, PkruError, Plan, ProtectionKey, ProtectionKeys, TaskPkru,
};

/// The keys that the system has enabled.
fn keys() -> Option<ProtectionKeys> {
    let keys = ProtectionKeys::new();
    // SAFETY: C45: no value here closes key 0, and the one page with another key is the system's to access.
    match unsafe { keys.use_those_of_system() } {
        Ok(()) => Some(keys),
        Err(why) => {
            assert_eq!((why, keys.are_on()), (PkruError::Absent, false));
            println!("SKIP: this CPU or its system has no protection keys");
            None
        }
    }
}

/// PKRU.
fn register() -> Pkru {
    let value;
    // SAFETY: asked where there are keys; it reads.
    unsafe { asm!("rdpkru", in("ecx") 0, out("eax") value, out("edx") _) };
    Pkru::from_bits(value)
}

/// What user mode does by itself.
fn write(value: Pkru) {
    // SAFETY: asked where there are keys; all pages that are in use have key 0, which is usable.
    unsafe { asm!("wrpkru", in("ecx") 0, in("eax") value.bits(), in("edx") 0) };
}

fn value(random: &mut Random) -> Pkru {
    Pkru::from_bits(random.word() as u32 & !3)
}

#[test]
fn without_keys_the_same_calls_do_nothing() {
    let (keys, plan) = (ProtectionKeys::new(), Plan::detect_user(Components::all()));
    let plan = plan.unwrap();
    let (one, other) = (TaskPkru::new(Pkru::INITIAL), TaskPkru::new(Pkru::LINUX_DEFAULT));
    keys.switch(Some(&one), Some(&other));
    keys.set_current(&other, Pkru::INITIAL);
    keys.exec(&other);
    keys.fork(&other, &one);
    assert_eq!(keys.current(&other), None);
    assert_eq!(keys.with_rights(&other, Pkru::INITIAL, || 7), 7);
    assert_eq!(keys.deliver(&other, Err::<(), _>), Err(None));
    assert!(!keys.format(&plan).components().contains(Components::PKRU));
    let kept = |cell: &TaskPkru| cell.read(&stop(&new_task()));
    assert_eq!((kept(&one), kept(&other)), (Pkru::INITIAL, Pkru::LINUX_DEFAULT));
    // SAFETY: C1, C44, C45: in ring 3 it is refused.
    let refused = unsafe { keys.enable_on_this_cpu(&plan) };
    assert_eq!(refused, Err(PkruError::WrongRing(3)));
}

/// Two tasks on one CPU, with words that say what each should have.
#[test]
fn the_register_is_always_the_running_tasks() {
    let Some(keys) = keys() else { return };
    let before = register();
    let tasks = [TaskPkru::new(Pkru::LINUX_DEFAULT), TaskPkru::new(Pkru::LINUX_DEFAULT)];
    let mut due = [Pkru::LINUX_DEFAULT; 2];
    let mut random = Random::new(5);
    let mut runs = 0;
    keys.switch(None, Some(&tasks[0]));
    for _ in 0..50_000 {
        let (own, other) = (&tasks[runs], &tasks[1 - runs]);
        match random.word() % 8 {
            0 => {
                keys.switch(Some(own), Some(other));
                runs = 1 - runs;
            }
            1 => {
                due[runs] = value(&mut random);
                write(due[runs]);
            }
            2 => {
                due[runs] = value(&mut random);
                keys.set_current(own, due[runs]);
            }
            3 => {
                due[1 - runs] = value(&mut random);
                other.write(&stop(&new_task()), due[1 - runs]);
            }
            4 => {
                let (rights, inner) = (value(&mut random), value(&mut random));
                keys.with_rights(own, rights, || {
                    assert_eq!((register(), keys.current(own)), (rights, Some(due[runs])));
                    keys.with_rights(own, inner, || {
                        assert_eq!((register(), keys.current(own)), (inner, Some(due[runs])));
                        keys.switch(Some(own), Some(other));
                        assert_eq!(register(), due[1 - runs]);
                        keys.switch(Some(other), Some(own));
                        assert_eq!(register(), inner);
                    });
                    assert_eq!(register(), rights);
                });
            }
            5 => {
                let written = if random.word() % 2 == 0 { Ok(()) } else { Err(()) };
                let found = keys.deliver(own, |found| {
                    assert_eq!((found, register()), (Some(due[runs]), Pkru::INITIAL));
                    written
                });
                assert_eq!(found, written);
                if written.is_ok() {
                    due[runs] = Pkru::LINUX_DEFAULT;
                }
            }
            6 => {
                keys.fork(own, other);
                due[1 - runs] = due[runs];
            }
            _ => {
                keys.exec(own);
                due[runs] = keys.default_value();
            }
        }
        assert_eq!((register(), keys.current(&tasks[runs])), (due[runs], Some(due[runs])));
        assert_eq!(tasks[1 - runs].read(&stop(&new_task())), due[1 - runs]);
    }
    write(before);
}

/// What the handler's frame says is what the interrupted code had; without the component it is the CPU's initial value.
#[test]
fn a_frame_brings_back_the_interrupted_rights() {
    let Some(keys) = keys() else { return };
    let plan = Plan::detect_user(Components::all()).unwrap();
    let format = keys.format(&plan);
    if !format.components().contains(Components::PKRU) {
        println!("SKIP: XCR0 has no PKRU here");
        return;
    }
    let area = Area::<16384>::new();
    let base = area.base();
    // SAFETY: C9: this function's own area, aligned and long enough for any plan; no code writes it while the view lives
    // (C11).
    let image = unsafe {
        plan.write_initial(base);
        plan.image(base)
    };
    let own = TaskPkru::new(Pkru::LINUX_DEFAULT);
    let before = register();
    let mut random = Random::new(6);
    for absent in [false, true] {
        let had = value(&mut random);
        keys.set_current(&own, had);
        let mut frame = vec![0; format.frame_len()];
        let written = keys.deliver(&own, |interrupted| {
            format.write_frame(&image, interrupted.map(Pkru::bits), &mut frame)
        });
        assert_eq!((written, register()), (Ok(frame.len()), Pkru::LINUX_DEFAULT));
        if absent {
            // Bit 9 of XSTATE_BV, which is at 512.
            frame[513] &= !2;
        }
        write(value(&mut random));
        keys.sigreturn(&own, format.read_frame(&mut frame).unwrap().pkru());
        assert_eq!(register(), if absent { Pkru::INITIAL } else { had });
    }
    write(before);
}

/// A page with a key of its own.
struct Page {
    at: *mut libc::c_void,
    key: ProtectionKey,
}

const PAGE: usize = 4096;

impl Page {
    /// `None` where the system gives no keys: an emulator of user mode.
    fn new() -> Option<Self> {
        // SAFETY: system calls that take integers, and make memory of their own.
        unsafe {
            let number = libc::syscall(libc::SYS_pkey_alloc, 0, 0);
            let key = u8::try_from(number).ok().and_then(ProtectionKey::new)?;
            let both = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let at = libc::mmap(ptr::null_mut(), PAGE, both, flags, -1, 0);
            assert_ne!(at, libc::MAP_FAILED);
            assert_eq!(libc::syscall(libc::SYS_pkey_mprotect, at, PAGE, both, number), 0);
            Some(Self { at, key })
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: this program's own, and nothing refers to it any more.
        unsafe {
            libc::munmap(self.at, PAGE);
            libc::syscall(libc::SYS_pkey_free, libc::c_long::from(self.key.number()));
        }
    }
}

/// Does the system read from the page, and does it write there?
fn accesses(page: &Page) -> (bool, bool) {
    let mut pipe = [0; 2];
    // SAFETY: the system accesses the page, or refuses with EFAULT; the rest is this function's.
    unsafe {
        assert_eq!(libc::pipe(pipe.as_mut_ptr()), 0);
        let reads = libc::write(pipe[1], page.at, 8) == 8;
        if !reads {
            assert_eq!(*libc::__errno_location(), libc::EFAULT);
            assert_eq!(libc::write(pipe[1], [0_u8; 8].as_ptr().cast(), 8), 8);
        }
        let writes = libc::read(pipe[0], page.at, 8) == 8;
        assert!(writes || *libc::__errno_location() == libc::EFAULT);
        libc::close(pipe[0]);
        libc::close(pipe[1]);
        (reads, writes)
    }
}

#[test]
fn the_systems_accesses_are_made_with_the_rights_of_the_scope() {
    let Some(keys) = keys() else { return };
    let Some(page) = Page::new() else {
        println!("SKIP: this system allocates no protection key");
        return;
    };
    let own = TaskPkru::new(Pkru::LINUX_DEFAULT);
    let before = register();
    let with = |rights| before.with(page.key, rights);
    let all = [
        (KeyRights::All, (true, true)),
        (KeyRights::ReadOnly, (true, false)),
        (KeyRights::None, (false, false)),
    ];
    for (rights, expected) in all {
        keys.set_current(&own, with(rights));
        assert_eq!(accesses(&page), expected, "{rights:?}");
        for (inner, other) in all {
            let seen = keys.with_rights(&own, with(inner), || accesses(&page));
            assert_eq!((seen, accesses(&page)), (other, expected), "{inner:?} within {rights:?}");
        }
        let delivered = keys.deliver(&own, |_| match accesses(&page) {
            (true, true) => Err(()),
            _ => Ok(()),
        });
        assert_eq!((delivered, accesses(&page)), (Err(()), expected), "a frame behind the key");
    }
    write(before);
}
