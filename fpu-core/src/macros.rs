//! The macro that writes all impls of a witness in one block.

/// Writes the impls of a kernel's witness types: [`Pinned`](crate::Pinned) with the promises that are added to it
/// ([`Exclusive`](crate::Exclusive), [`SoftFloat`](crate::SoftFloat)), or [`Stopped`](crate::Stopped).
///
/// The macro promises nothing: `unsafe` stands where it is used, once for all traits that are named there, and the
/// comment above it argues their duties (K2 to K9, K21; K10 to K12).
///
/// | entry | of | |
/// |---|---|---|
/// | `backend: B = \|w\| ..` | both | a reference to [`TheBackend<B>`](crate::TheBackend) |
/// | `words: W = \|w\| ..` | `Pinned` | a reference to this CPU's words |
/// | `bound: \|w\| ..` | `Pinned`, may be left out | this CPU's [`BoundCpu`](crate::BoundCpu): in all witnesses of a kernel, or in none |
/// | `level: \|w\| ..` | `Pinned`, may be left out | [`Level::Task`](crate::Level::Task) otherwise |
/// | `unchanged: \|w, context\| ..` | `Pinned`, may be left out | `false` otherwise |
/// | `observe: \|w, event\| ..` | `Pinned`, may be left out | nothing otherwise |
/// | `context: \|w\| ..` | `Stopped` | the task's [`context`](crate::TaskFpu::context) |
///
/// The entries stand in this order, each with a comma behind it. `w` is `&self`, and `_` where it is not needed. A type
/// with lifetimes is written with `'_`; for a type with other parameters write the impls by hand. No attribute or doc
/// comment stands before an impl: `#[cfg]` goes on a whole `witness!`.
///
/// ```
/// use core::marker::PhantomData;
/// use fpu_core::{CpuFpu, FpuRef, Level};
/// # use fpu_hosted_test::doc::{new_task, the_backend, this_cpu_fpu, Backend, Task};
/// struct IrqsOff(PhantomData<*mut ()>);
/// struct InNmi(PhantomData<*mut ()>);
/// struct Traced<'t>(&'t Task);
///
/// fpu_core::witness! {
///     // SAFETY: K2, K8: interrupts are off while the value lives. K3: per-CPU data. K4: each CPU enables it when it
///     // starts. K5: run-queue locks. K6: NMI handlers use `InNmi`. K9: this kernel is compiled soft-float.
///     unsafe impl Pinned + Exclusive + SoftFloat for IrqsOff {
///         backend: Backend = |_| the_backend(),
///         words: CpuFpu = |_| this_cpu_fpu(),
///     }
///     // SAFETY: K2 to K6, K9: the same; not `Exclusive`.
///     unsafe impl Pinned + SoftFloat for InNmi {
///         backend: Backend = |_| the_backend(),
///         words: CpuFpu = |_| this_cpu_fpu(),
///         level: |_| Level::Nmi,
///     }
///     // SAFETY: K10: made only under the tracer's lock, after the task left its CPU. K11: one per tracer. K12: a field.
///     unsafe impl Stopped for Traced<'_> {
///         backend: Backend = |_| the_backend(),
///         context: |proof| proof.0.context(),
///     }
/// }
/// # use fpu_core::Pinned;
/// # assert_eq!(InNmi(PhantomData).level(), Level::Nmi);
/// # assert_eq!(IrqsOff(PhantomData).level(), Level::Task);
/// # assert!(new_task().stopped(&mut Traced(&new_task())).is_err());
/// ```
#[macro_export]
macro_rules! witness {
    (
        unsafe impl Pinned $(+ $promise:ident)* for $name:ty {
            backend: $backend:ty = |$b:tt| $get_backend:expr,
            words: $words:ty = |$w:tt| $get_words:expr,
            $(bound: |$s:tt| $get_bound:expr,)?
            $(level: |$l:tt| $get_level:expr,)?
            $(unchanged: |$u:tt, $context:tt| $is_unchanged:expr,)?
            $(observe: |$o:tt, $event:tt| $tell:expr,)?
        }
        $($rest:tt)*
    ) => {
        // SAFETY: the witness's duties (K2 to K7, K21) are argued where the macro is used, by `unsafe impl`.
        unsafe impl $crate::Pinned for $name {
            type Backend = $backend;
            type Words = $words;
            #[inline(always)]
            fn backend(&self) -> &$crate::TheBackend<$backend> {
                let $b = self;
                $get_backend
            }
            #[inline(always)]
            fn words(&self) -> &$words {
                let $w = self;
                $get_words
            }
            $(
                #[inline]
                fn settle(&self, due: $crate::Settle<'_>) {
                    let $s = self;
                    $crate::BoundCpu::settle_due($get_bound, self, due);
                }
            )?
            $(
                #[inline]
                fn level(&self) -> $crate::Level {
                    let $l = self;
                    $get_level
                }
            )?
            $(
                #[inline(always)]
                fn unchanged(&self, context: usize) -> bool {
                    let ($u, $context) = (self, context);
                    $is_unchanged
                }
            )?
            $(
                #[inline(always)]
                fn observe(&self, event: $crate::observe::Event) {
                    let ($o, $event) = (self, event);
                    $tell
                }
            )?
        }
        $(
            // SAFETY: what is promised, exclusive (K8) or soft-float (K9), is argued where the macro is used, by
            // `unsafe impl`.
            unsafe impl $crate::$promise for $name {}
        )*
        $crate::witness! { $($rest)* }
    };
    (
        unsafe impl Stopped for $name:ty {
            backend: $backend:ty = |$b:tt| $get_backend:expr,
            context: |$c:tt| $get_context:expr,
        }
        $($rest:tt)*
    ) => {
        // SAFETY: the proof's duties (K10 to K12) are argued where the macro is used, by `unsafe impl`.
        unsafe impl $crate::Stopped for $name {
            type Backend = $backend;
            #[inline]
            fn backend(&self) -> &$crate::TheBackend<$backend> {
                let $b = self;
                $get_backend
            }
            #[inline]
            fn context(&self) -> $crate::FpuRef<'_, $backend> {
                let $c = self;
                $get_context
            }
        }
        $crate::witness! { $($rest)* }
    };
    () => {};
    (# $($rest:tt)*) => {
        ::core::compile_error!(
            "witness!: no attribute or doc comment stands before an impl: write `//`, or put `#[cfg]` on the whole `witness!`"
        );
    };
    (unsafe impl Stopped $($rest:tt)*) => {
        ::core::compile_error!(
            "witness!: `unsafe impl Stopped for Type` has these entries in this order, each with a comma: \
            `backend: B = |w| ..`, `context: |w| ..`"
        );
    };
    (unsafe impl Pinned $($rest:tt)*) => {
        ::core::compile_error!(
            "witness!: `unsafe impl Pinned for Type` (or `Pinned + Exclusive + SoftFloat`) has these entries in this order, \
            each with a comma: `backend: B = |w| ..`, `words: W = |w| ..`; \
            then, where wanted, `bound: |w| ..`, `level: |w| ..`, `unchanged: |w, context| ..`, `observe: |w, event| ..`"
        );
    };
    ($($rest:tt)*) => {
        ::core::compile_error!(
            "witness!: each impl begins with `unsafe impl Pinned` or `unsafe impl Stopped`"
        );
    };
}
