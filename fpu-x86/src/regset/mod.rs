//! Registers as programs, debuggers and core files see them.
//!
//! The formats are Linux's, and no Linux is needed: `NT_PRFPREG` and `NT_X86_XSTATE` are what a debugger gets and sets,
//! and what a core file has for each thread; `NT_X86_XSAVE_LAYOUT` says once for a core file where components lie. A
//! [signal frame](UserFormat::write_frame) has the same components.

mod note;
#[cfg(test)]
#[path = "../tests/regset.rs"]
pub(crate) mod tests;

use core::fmt;

use crate::{
    components::{extended, Components},
    error::ImageError,
    fields::{set, u32_at, INITIAL_MXCSR, MXCSR_MASK, XSTATE_BV},
    foreign::{ForeignError, ForeignImage, ForeignRules, Reading, ValidImage, Way},
    image::{standard_len, Image, Where},
    layout::{EXTENDED, HEADER},
    opened::InMemory,
    origin::XCR0,
    plan::Plan,
    save_instruction::Format,
};

/// The state that leaves the kernel and returns: the user components of a plan and the protection-key rights, in the
/// standard format of the plan's machine.
///
/// It writes images of any plan. Where the image's plan is another machine's, the write is a conversion, and refuses
/// what this machine's format cannot hold.
///
/// ```
/// use fpu_x86::{Image, ImageError, Plan};
/// // The note of one thread in a core file.
/// fn note(plan: &Plan, image: &Image<'_>, pkru: Option<u32>) -> Result<Vec<u8>, ImageError> {
///     let format = plan.user_format();
///     let mut note = vec![0; format.xstate_len()];
///     format.write_xstate(image, pkru, &mut note)?;
///     Ok(note)
/// }
/// ```
#[derive(Clone, Copy)]
pub struct UserFormat<'p> {
    pub(crate) plan: &'p Plan,
    components: Components,
    tiles: bool,
}

impl Plan {
    /// The format in which a task of this plan exchanges state with user space.
    ///
    /// The format has PKRU where the CPU has it and, in ring 3, the system has enabled it. A kernel that does not
    /// switch PKRU removes it by [`without_pkru`](UserFormat::without_pkru).
    ///
    /// ```
    /// use fpu_x86::{Components, Plan};
    /// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
    /// let plan = Plan::detect_user(Components::all())?;
    /// let format = plan.user_format();
    /// assert!(format.components().contains(plan.components()));
    /// assert!(format.frame_len() >= 512);
    /// # }
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    #[must_use]
    pub fn user_format(&self) -> UserFormat<'_> {
        let mut components = self.user_components();
        components.set(Components::PKRU, self.carries_pkru());
        UserFormat { plan: self, components, tiles: false }
    }
}

impl<'p> UserFormat<'p> {
    /// This format without the protection-key rights.
    #[must_use]
    pub fn without_pkru(self) -> Self {
        Self { components: self.components.difference(Components::PKRU), ..self }
    }

    /// This format for a task that may use tiles: signal frames have its tiles, and the kernel takes tiles from frames
    /// and debuggers.
    ///
    /// # Safety
    ///
    /// Tiles allowed (C24), as for [`ForeignImage::validate_with_tiles`](crate::ForeignImage::validate_with_tiles),
    /// whenever an image into which tiles are put is restored.
    #[must_use]
    pub unsafe fn with_tiles(self) -> Self {
        Self { tiles: true, ..self }
    }

    /// The components, PKRU included.
    #[must_use]
    pub fn components(&self) -> Components {
        self.components
    }

    /// The components that are not taken, because the task has no permission.
    pub(crate) fn forbidden(&self) -> Components {
        if self.tiles {
            Components::empty()
        } else {
            Components::TILEDATA
        }
    }

    /// Tells whether an image has a header here, as it has with XSAVE.
    pub(crate) fn has_header(&self) -> bool {
        self.plan.format() != Format::Legacy
    }

    pub(crate) fn standard_len(&self, components: Components) -> usize {
        standard_len(self.plan, components)
    }

    /// This format of these components.
    pub(crate) fn only(self, components: Components) -> Self {
        Self { components, ..self }
    }

    /// Writes `components` of an image. All of the first `len` bytes are written.
    pub(crate) fn write(
        &self,
        image: &Image<'_>,
        pkru: Option<u32>,
        components: Components,
        out: &mut [u8],
    ) -> Result<usize, ImageError> {
        self.write_without(image, pkru, components, Components::empty(), out)
    }

    /// As [`write`](Self::write). The components `initial` are written as initial, whatever the image holds.
    pub(crate) fn write_without(
        &self,
        image: &Image<'_>,
        pkru: Option<u32>,
        components: Components,
        initial: Components,
        out: &mut [u8],
    ) -> Result<usize, ImageError> {
        let need = self.standard_len(components);
        let out = out.get_mut(..need).ok_or(ImageError::TooShort { need })?;
        let given = if pkru.is_some() { Components::PKRU } else { Components::empty() };
        let excess = image.present().user_part().union(given).difference(components);
        if !excess.is_empty() {
            return Err(ImageError::NotManaged { component: excess });
        }
        let bits = image.mxcsr() & !self.plan.mxcsr_mask();
        if bits != 0 {
            return Err(ImageError::ReservedMxcsr { bits });
        }
        let set_of = components.difference(Components::PKRU).difference(initial);
        // Beyond the plan's own there is only PKRU.
        image.export(out, need, Format::Standard, set_of, Where::Standard(self.plan))?;
        set(out, MXCSR_MASK, self.plan.mxcsr_mask().to_le_bytes());
        if image.mxcsr() != INITIAL_MXCSR {
            // The reader of the bytes may take MXCSR for a part of SSE.
            let present = u32_at(out, XSTATE_BV) | Components::SSE.bits() as u32;
            set(out, XSTATE_BV, present.to_le_bytes());
        }
        if let (Some(pkru), Some((offset, _))) = (pkru, self.pkru_place()) {
            set(out, offset, pkru.to_le_bytes());
            let present = u32_at(out, XSTATE_BV) | Components::PKRU.bits() as u32;
            set(out, XSTATE_BV, present.to_le_bytes());
        }
        Ok(need)
    }

    fn pkru_place(&self) -> Option<(usize, usize)> {
        let described = self.plan.cpuid_info().described(Components::PKRU.number()?)?;
        Some((described.offset as usize, described.size as usize))
    }

    /// Bytes of `NT_X86_XSTATE`: the standard format of all [`components`](Self::components), tiles among them whether
    /// the task may use them or not.
    #[must_use]
    pub fn xstate_len(&self) -> usize {
        self.standard_len(self.components)
    }

    /// Writes `NT_X86_XSTATE` (0x202), and returns its length.
    ///
    /// XCR0 stands at byte 464, where debuggers look for it. SSE is marked as present with MXCSR. What is absent is written as its initial value, and gaps are
    /// zero; nothing of what lay in the image or in `out` before comes along. `pkru` is the value that the task has, where
    /// the kernel switches it; without it the component is absent, which means 0.
    ///
    /// # Errors
    ///
    /// [`ImageError::TooShort`]; [`ImageError::NotManaged`] for `pkru` where the format has none, or if the image is of
    /// another plan and holds more than this one; [`ImageError::ReservedMxcsr`], [`ImageError::OtherSize`] if it
    /// is of another CPU, whose bits and sizes are not this one's. `out` is unchanged.
    ///
    /// ```
    /// use fpu_x86::{Image, ImageError, Plan};
    /// // A guest is sent to a machine for which `there` is the plan.
    /// fn migrate_out(image: &Image<'_>, there: &Plan, out: &mut [u8]) -> Result<usize, ImageError> {
    ///     there.user_format().without_pkru().write_xstate(image, None, out)
    /// }
    /// ```
    #[doc(alias = "NT_X86_XSTATE")]
    #[doc(alias = "PTRACE_GETREGSET")]
    pub fn write_xstate(
        &self,
        image: &Image<'_>,
        pkru: Option<u32>,
        out: &mut [u8],
    ) -> Result<usize, ImageError> {
        let len = self.write(image, pkru, self.components, out)?;
        set(out, XCR0, self.components.bits().to_le_bytes());
        Ok(len)
    }

    /// Checks an `NT_X86_XSTATE` that a debugger sets, in a private copy. It is taken whole or not at all, by
    /// [`ImageMut::replace_with`](crate::ImageMut::replace_with): what it does not have becomes initial, MXCSR with SSE.
    ///
    /// # Errors
    ///
    /// [`ForeignError::WrongLength`] if it has not [`xstate_len`](Self::xstate_len) bytes, and as for
    /// [`ForeignImage::validate`].
    ///
    /// ```
    /// use fpu_x86::{ForeignError, ImageMut, Plan};
    /// fn set(plan: &Plan, image: &mut ImageMut<'_>, copied: &mut [u8]) -> Result<(), ForeignError> {
    ///     let valid = plan.user_format().read_xstate(copied)?;
    ///     image.replace_with(&valid).expect("validated with the same plan");
    ///     Ok(())
    /// }
    /// ```
    #[doc(alias = "PTRACE_SETREGSET")]
    pub fn read_xstate(self, private: &'p mut [u8]) -> Result<ValidImage<'p>, ForeignError> {
        let (len, need) = (private.len(), self.xstate_len());
        if len != need {
            return Err(ForeignError::WrongLength { len, need });
        }
        let reading = Reading {
            padded: false,
            way: Way::Copied,
            ..Reading::of(&ForeignRules::new(), self.forbidden())
        };
        ForeignImage::in_private(private).checked(self.plan, &reading)
    }

    /// Sets the registers of a task to an `NT_X86_XSTATE`, which is in a private copy: whole or not at all. What is not in
    /// it becomes initial, supervisor components stay. Returns the protection-key rights that it has, where the format has
    /// them, for the kernel's own switch of PKRU.
    ///
    /// # Errors
    ///
    /// As for [`read_xstate`](Self::read_xstate). The image and the claims of registers are as before.
    ///
    /// ```
    /// use fpu_core::{SaveArea, Stopped, TaskFpu};
    /// use fpu_x86::{ForeignError, UserFormat, XsaveImages};
    /// /// PTRACE_SETREGSET. `proof` says that the task is stopped; `copied` is a copy of the debugger's bytes.
    /// fn set<P: Stopped, A: SaveArea>(
    ///     task: &TaskFpu<P::Backend, A>, proof: &mut P, format: UserFormat<'_>, copied: &mut [u8],
    /// ) -> Result<Result<Option<u32>, ForeignError>, fpu_core::Error>
    /// where
    ///     P::Backend: XsaveImages,
    /// {
    ///     Ok(format.set_xstate(task.stopped(proof)?, copied))
    /// }
    /// ```
    #[doc(alias = "PTRACE_SETREGSET")]
    pub fn set_xstate(
        &self,
        task: impl InMemory,
        private: &mut [u8],
    ) -> Result<Option<u32>, ForeignError> {
        let valid = self.read_xstate(private)?;
        valid.put_into(task)?;
        Ok(valid.pkru().filter(|_| self.components.contains(Components::PKRU)))
    }

    /// Sets x87 and SSE of a task to an `NT_PRFPREG`, which is in a private copy: whole or not at all. The other components
    /// stay.
    ///
    /// # Errors
    ///
    /// As for [`read_prfpreg`](Self::read_prfpreg). The image and the claims of registers are as before.
    #[doc(alias = "PTRACE_SETFPREGS")]
    pub fn set_prfpreg(&self, task: impl InMemory, private: &mut [u8]) -> Result<(), ForeignError> {
        self.read_prfpreg(private)?.put_part_into(task, Components::LEGACY)
    }

    /// Writes `NT_PRFPREG` (2): x87 and SSE as FXSAVE64 writes them. A core file has it for each thread, too.
    ///
    /// # Errors
    ///
    /// [`ImageError::ReservedMxcsr`] if the image is of another CPU. `out` is unchanged.
    #[doc(alias = "NT_PRFPREG")]
    pub fn write_prfpreg(
        &self,
        image: &Image<'_>,
        out: &mut [u8; HEADER],
    ) -> Result<(), ImageError> {
        let bits = image.mxcsr() & !self.plan.mxcsr_mask();
        if bits != 0 {
            return Err(ImageError::ReservedMxcsr { bits });
        }
        image.to_fxsave(out);
        set(out, MXCSR_MASK, self.plan.mxcsr_mask().to_le_bytes());
        Ok(())
    }

    /// Checks an `NT_PRFPREG` that a debugger sets, in a private copy. It is put into a task's image by
    /// [`ImageMut::merge`](crate::ImageMut::merge) with [`Components::LEGACY`]: the other components stay.
    ///
    /// # Errors
    ///
    /// [`ForeignError::WrongLength`], [`ForeignError::ReservedMxcsr`].
    pub fn read_prfpreg(self, private: &'p mut [u8]) -> Result<ValidImage<'p>, ForeignError> {
        let (len, need) = (private.len(), HEADER);
        if len != need {
            return Err(ForeignError::WrongLength { len, need });
        }
        ForeignImage::in_private(private).validate(self.plan)
    }

    /// The extended components that are in it.
    fn extended(&self) -> impl Iterator<Item = u32> {
        extended(self.components)
    }
}

impl fmt::Debug for UserFormat<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserFormat")
            .field("components", &self.components)
            .field("tiles", &self.tiles)
            .finish_non_exhaustive()
    }
}

/// Behind the header nothing is written that is not a component's or zero.
const _: () = assert!(EXTENDED as usize == HEADER + 64);
