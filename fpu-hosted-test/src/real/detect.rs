//! Asks the CPU for its classes, as a program under an operating system does.

use super::Classes;

impl Classes {
    /// The classes that the CPU has, by CPUID, and that the operating system has enabled, by XGETBV.
    #[must_use]
    pub fn detect() -> Self {
        #[allow(unused_mut)]
        let mut all = Self::BASE;
        #[cfg(target_arch = "x86_64")]
        {
            if std::is_x86_feature_detected!("avx") {
                all = all.with(Self::AVX);
            }
            if all.contains(Self::AVX) && std::is_x86_feature_detected!("avx512f") {
                all = all.with(Self::AVX512);
                if std::is_x86_feature_detected!("avx512bw") {
                    all = all.with(Self::WIDE_MASKS);
                }
            }
        }
        all
    }
}
