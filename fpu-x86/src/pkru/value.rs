//! The value: two bits a key.

use core::fmt;

/// The number of a protection key: 0 to 15. A user page has one, in bits 59 to 62 of its page-table entry.
///
/// ```
/// use fpu_x86::ProtectionKey;
/// assert_eq!(ProtectionKey::new(15).map(ProtectionKey::number), Some(15));
/// assert_eq!(ProtectionKey::new(16), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProtectionKey(u8);

impl ProtectionKey {
    /// The key of pages that were given no other.
    pub const DEFAULT: Self = Self(0);

    /// The key of that number, if there is one.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        match number {
            0..=15 => Some(Self(number)),
            _ => None,
        }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// All sixteen.
    ///
    /// ```
    /// assert_eq!(fpu_x86::ProtectionKey::all().count(), 16);
    /// ```
    pub fn all() -> impl Iterator<Item = Self> {
        (0..16).map(Self)
    }

    /// Where its two bits are: access disable, and write disable above it.
    const fn shift(self) -> u32 {
        2 * self.0 as u32
    }
}

/// What PKRU lets an access to pages of one key do. Execution is not its matter.
///
/// ```
/// use fpu_x86::{ProtectionKey, KeyRights, Pkru};
/// assert_eq!(Pkru::INITIAL.rights(ProtectionKey::DEFAULT), KeyRights::All);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyRights {
    /// Read and write.
    All,
    /// Read only. The kernel's own writes are refused too, as long as CR0.WP is set (SDM vol. 3, 4.6.2).
    ReadOnly,
    /// Neither.
    None,
}

/// A value of PKRU. Any 32 bits are one.
///
/// ```
/// use fpu_x86::{ProtectionKey, KeyRights, Pkru};
/// let secret = ProtectionKey::new(3).ok_or("no such key")?;
/// let pkru = Pkru::INITIAL.with(secret, KeyRights::ReadOnly);
/// assert_eq!(pkru.bits(), 0b10 << 6);
/// assert_eq!(pkru.to_string(), "0x00000080: key 3 read only");
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pkru(u32);

impl Pkru {
    /// The CPU's initial value, of component 9 too where XSTATE_BV\[9\] is clear: all keys are usable. No kernel's default:
    /// a key that a task has not asked for would be open to it.
    pub const INITIAL: Self = Self(0);
    /// What Linux gives a new program, and a signal's handler: key 0 alone is usable.
    #[doc(alias = "init_pkru_value")]
    pub const LINUX_DEFAULT: Self = Self(0x5555_5554);

    /// The value of these bits.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// As the register and images have it.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// What it allows with a key.
    #[must_use]
    pub const fn rights(self, key: ProtectionKey) -> KeyRights {
        match self.0 >> key.shift() & 3 {
            0 => KeyRights::All,
            2 => KeyRights::ReadOnly,
            _ => KeyRights::None,
        }
    }

    /// The same with other rights for one key.
    #[doc(alias = "arch_set_user_pkey_access")]
    #[must_use]
    pub const fn with(self, key: ProtectionKey, rights: KeyRights) -> Self {
        let bits = match rights {
            KeyRights::All => 0,
            KeyRights::ReadOnly => 2,
            KeyRights::None => 1,
        };
        Self(self.0 & !(3 << key.shift()) | bits << key.shift())
    }
}

impl Default for Pkru {
    /// [`LINUX_DEFAULT`](Self::LINUX_DEFAULT).
    fn default() -> Self {
        Self::LINUX_DEFAULT
    }
}

impl fmt::Display for Pkru {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}: ", self.0)?;
        if *self == Self::INITIAL {
            return f.write_str("all keys");
        }
        // Neighbours with the same rights together.
        let mut rest = ProtectionKey::all().peekable();
        let mut comma = "";
        while let Some(first) = rest.next() {
            let rights = self.rights(first);
            let mut last = first;
            while let Some(same) = rest.next_if(|next| self.rights(*next) == rights) {
                last = same;
            }
            let rights = match rights {
                KeyRights::All => continue,
                KeyRights::ReadOnly => "read only",
                KeyRights::None => "no access",
            };
            match (first.0, last.0) {
                (key, last) if key == last => write!(f, "{comma}key {key} {rights}")?,
                (key, last) => write!(f, "{comma}keys {key} to {last} {rights}")?,
            }
            comma = ", ";
        }
        Ok(())
    }
}

impl fmt::Debug for Pkru {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pkru({:#010x})", self.0)
    }
}
