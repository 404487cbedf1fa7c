// error: E0277
// expect: an `Area` cannot have this alignment
// expect: not 8, 16, 32, 64 or 128
use fpu_core::*;

pub static WRONG: Area<512, 48> = Area::aligned();
