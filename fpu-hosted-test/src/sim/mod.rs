//! A simulated CPU: registers that behave like XSAVE's where it matters to deferred restores, two words,
//! witnesses, and an interrupt line that can strike at any step.
//!
//! What it imitates: components of different sizes at offsets that are not in their order; the init
//! optimisation (a save of a component in its initial state writes only a header bit, and the old
//! bytes stay); the modified optimisation (a save to where the last restore came from leaves out
//! what was not written since); a restore that refuses an illegal image, and registers that are
//! then neither old nor new.
//!
//! ```
//! use fpu_core::{CpuLifecycle, TaskFpu};
//! use fpu_hosted_test::sim::{Registers, SimArea, SimCpu};
//! let cpu = SimCpu::online(0);
//! let task = TaskFpu::new(cpu.fpu(), SimArea::new())?;
//! task.switch_return(&mut cpu.irqs_off())?;
//! cpu.fpu().load(&Registers::pattern(1, u64::MAX)); // user mode
//! task.switch_prepare(&cpu.irqs_off())?;
//! cpu.irqs_off().invalidate_registers()?;
//! cpu.fpu().scribble(99);
//! task.switch_return(&mut cpu.irqs_off())?;
//! assert_eq!(cpu.fpu().registers(), Registers::pattern(1, u64::MAX));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cpu;
mod flaw;
mod fpu;
mod harness;
mod image;
mod layout;
mod line;
mod on_demand;

pub use cpu::{Interrupted, IrqsOff, Kind, Nmi, Preempt, SimCpu, SimStopped, SimWords, Witness};
pub use flaw::Flaw;
pub use fpu::SimFpu;
pub use harness::SimHarness;
pub use image::{SimImage, SimImageMut};
pub use layout::{Component, Registers, AREA_ALIGN, AREA_LEN, BASE_LEN, COMPONENTS, LAYOUT};
pub use line::{Injection, Interrupt};
pub use on_demand::{Room, XfdCpu, XfdFpu, XfdPin};

/// Memory for one simulated image.
pub type SimArea = fpu_core::Area<AREA_LEN>;
