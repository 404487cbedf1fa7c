//! A whole switch between contexts that may never have been used.

use super::{Kind, TrapFpu, Trapped, NEVER};
use crate::{
    error::SwitchError,
    protocol::cpu_word::Stamp,
    witness::{Exclusive, Pinned, SoftFloat},
};

/// [`switch`](crate::switch()) between two of these contexts; `None` is a thread that does not use the registers. From one
/// context that was never used to another the trap stays armed, and no register of the CPU is written.
///
/// # Errors
///
/// As there.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// use fpu_core::trap::switch;
/// # let (mut cpu, one) = cpu_and_trapped();
/// # let other = new_trapped();
/// switch(None, Some(&one), &mut cpu)?;            // arms the trap
/// switch(Some(&one), Some(&other), &mut cpu)?;    // two stores
/// other.first_use(&mut cpu)?;
/// switch(Some(&other), Some(&one), &mut cpu)?;    // saves `other`, and arms the trap
/// switch(Some(&one), None, &mut cpu)?;            // disarms it
/// assert!(!cpu.trap_is_armed());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn switch<T, C>(
    prev: Option<&Trapped<T>>,
    next: Option<&Trapped<T>>,
    cpu: &mut C,
) -> Result<(), SwitchError>
where
    T: Kind,
    T::Backend: TrapFpu,
    C: Exclusive + SoftFloat + Pinned<Backend = T::Backend>,
{
    let stamp = Stamp::of(cpu.words());
    match (prev, next) {
        (Some(prev), Some(next)) if core::ptr::eq(prev, next) => {}
        (Some(prev), Some(next))
            if prev.is_armed(stamp) && next.state() == NEVER && stamp.is_open() =>
        {
            prev.set(NEVER);
            next.set(stamp.bits());
            return Ok(());
        }
        (Some(prev), _) => prev.switch_prepare(cpu).map_err(SwitchError::Prev)?,
        (None, _) => {}
    }
    match next {
        Some(next) => next.switch_in(cpu).map_err(SwitchError::Next),
        None => Ok(()),
    }
}
