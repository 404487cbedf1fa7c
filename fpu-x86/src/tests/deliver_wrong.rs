//! Delivery and return done wrong: the tests of the right one can fail.

use super::*;

/// Kernels that do it in another way, each wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    /// The state is initial before the copy is done.
    InitialFirst,
    /// A copy that has failed counts as done.
    IgnoresFault,
    /// The handler starts with the registers of the interrupted code.
    StartsAsItWas,
    /// Supervisor components become initial too.
    ResetsAll,
    /// The frame comes from an image that the registers have left behind.
    Stale,
    /// What was copied first is put in before the rest is there.
    ReturnsByHalves,
    /// The second copy begins at the first byte again.
    FetchesTwice,
    /// Of a frame that is refused x87 and SSE are taken.
    TakesTheRefused,
}
const WRONG: [Wrong; 8] = [
    Wrong::InitialFirst,
    Wrong::IgnoresFault,
    Wrong::StartsAsItWas,
    Wrong::ResetsAll,
    Wrong::Stale,
    Wrong::ReturnsByHalves,
    Wrong::FetchesTwice,
    Wrong::TakesTheRefused,
];

impl Wrong {
    fn change<R>(world: &World<'_>, cpu: usize, run: impl FnOnce(ImageMut<'_>) -> R) -> R {
        world.with(cpu, |opened| match opened {
            Opener::Soft(it) => run(it.make_memory_valid_write().image_mut()),
            Opener::Vector(it) => run(it.make_memory_valid_write().image_mut()),
        })
    }
}

impl Calls for Wrong {
    fn deliver(
        &self,
        world: &World<'_>,
        cpu: usize,
        narrow: bool,
        pkru: Option<u32>,
        buffer: &mut [u8],
        copy: ToUser<'_>,
    ) -> Result<usize, DeliverError<usize>> {
        let right = |buffer: &mut [u8], copy: ToUser<'_>| {
            Right.deliver(world, cpu, narrow, pkru, buffer, copy)
        };
        match self {
            Wrong::InitialFirst => {
                let mut frame = Vec::new();
                let len = right(buffer, &mut |part| {
                    frame = part.to_vec();
                    Ok(())
                })?;
                copy(&frame).map_err(DeliverError::FaultIn)?;
                Ok(len)
            }
            Wrong::IgnoresFault => right(buffer, &mut |part| copy(part).or(Ok(()))),
            Wrong::StartsAsItWas => {
                let mut len = 0;
                let failed = right(buffer, &mut |part| {
                    len = part.len();
                    copy(part).and(Err(usize::MAX))
                });
                match failed {
                    Err(DeliverError::FaultIn(usize::MAX)) => Ok(len),
                    other => other,
                }
            }
            Wrong::ResetsAll => {
                let len = right(buffer, copy)?;
                world.task.reset(&mut Soft(&world.cpus[cpu])).unwrap();
                Ok(len)
            }
            Wrong::Stale => {
                let here = &world.cpus[cpu];
                if here.memory(&world.task).is_none() {
                    let scrambled = vec![0; here.registers().len()];
                    here.load(&scrambled);
                }
                right(buffer, copy)
            }
            _ => right(buffer, copy),
        }
    }
    fn sigreturn(
        &self,
        world: &World<'_>,
        cpu: usize,
        narrow: bool,
        buffer: &mut [u8],
        copy: FromUser<'_>,
    ) -> Result<Returned, SigreturnError<usize>> {
        let legacy = if narrow { FRONT + XMM } else { XMM };
        match self {
            Wrong::ReturnsByHalves => {
                let mut first = Vec::new();
                let returned = Right.sigreturn(world, cpu, narrow, buffer, &mut |from, bytes| {
                    copy(from, bytes)?;
                    if from == 0 {
                        first = bytes.to_vec();
                    }
                    Ok(())
                });
                if let (Err(_), Some(xmm)) = (&returned, first.get(legacy..legacy + 16)) {
                    let xmm = xmm.try_into().unwrap();
                    Self::change(world, cpu, |mut image| image.set_xmm(0, xmm)).unwrap();
                }
                returned
            }
            Wrong::FetchesTwice => {
                Right.sigreturn(world, cpu, narrow, buffer, &mut |from, bytes| {
                    if from > 0 {
                        copy(0, &mut [0])?;
                    }
                    copy(from, bytes)
                })
            }
            Wrong::TakesTheRefused => {
                let returned = Right.sigreturn(world, cpu, narrow, buffer, copy);
                if let (Err(SigreturnError::Refused(_)), Some(xmm)) =
                    (&returned, buffer.get(legacy..legacy + 16))
                {
                    let xmm = xmm.try_into().unwrap();
                    Self::change(world, cpu, |mut image| image.set_xmm(0, xmm)).unwrap();
                }
                returned
            }
            _ => Right.sigreturn(world, cpu, narrow, buffer, copy),
        }
    }
}

/// So the tests above can fail, each of these by what it does wrong.
#[test]
fn wrong_kernels_are_noticed() {
    for wrong in WRONG {
        let mut random = Random(43);
        let plans = plans();
        let found = plans.iter().find_map(|plan| every_way(&wrong, plan, &mut random).err());
        let found = found.unwrap_or_else(|| panic!("{wrong:?} is not noticed"));
        println!("{wrong:?}: {found}");
    }
}
