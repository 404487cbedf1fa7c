// error: E0451
// expect: of struct `fpu_core::FpuRef` are private
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn alias(word: &raw::TaskWord, area: core::ptr::NonNull<u8>) -> FpuRef<'_, Xsave> {
    FpuRef { word, area, backend: core::marker::PhantomData }
}
