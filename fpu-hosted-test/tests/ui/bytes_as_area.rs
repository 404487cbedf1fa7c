// error: E0277
// expect: `Box<[u8]>` is no memory for an image
// expect: bytes alone (`[u8]`, `Box<[u8]>`, `Vec<u8>`) do not say how they are aligned
// expect: `HeapArea::for_backend` (feature `alloc`) the size of this machine
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

pub fn wrong(cpu: &IrqOff, slice: Box<[u8]>) -> bool {
    TaskFpu::new(cpu.backend(), slice).is_ok()
}
