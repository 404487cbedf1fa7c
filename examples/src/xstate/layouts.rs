//! Both layouts of a set of components, by the library, as numbers for people and programs.

use std::collections::BTreeMap;

use fpu_x86::{Compacted, Components, CpuidInfo, Layout, LayoutFormat, PlanError, Standard};

use super::words::{component, numbers};

/// One format's area.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Bytes, with the legacy area and the header.
    pub len: u32,
    /// Offset and size of the extended components (number 2 and up).
    pub places: BTreeMap<u32, (u32, u32)>,
}

/// Both formats for one set of components.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layouts {
    /// Of the user components.
    pub standard: Region,
    /// Of all.
    pub compacted: Region,
}

impl Layouts {
    /// The layouts of the components in `bitmap`, legal as a value of XCR0 or not.
    ///
    /// # Errors
    ///
    /// The component that the CPU does not describe, or that cannot lie where it says.
    pub fn new(facts: &CpuidInfo, bitmap: u64) -> Result<Self, String> {
        let set = Components::from_bits_retain(bitmap);
        if bitmap >> 63 != 0 {
            return Err("bit 63 of the bitmap is no component".into());
        }
        // By the component's own description, where there is one, not by the mask it is listed in.
        let supervisor = |number: u32| facts.described(number).is_some_and(|d| d.supervisor);
        let user = numbers(bitmap).filter(|number| !supervisor(*number));
        let user = user.fold(0, |bits, number| bits | 1 << number);
        let standard = Layout::<Standard>::new(facts, Components::from_bits_retain(user));
        let compacted = Layout::<Compacted>::new(facts, set);
        Ok(Self {
            standard: region(&standard.map_err(|why| explain(&why))?),
            compacted: region(&compacted.map_err(|why| explain(&why))?),
        })
    }
}

fn region<F: LayoutFormat>(layout: &Layout<F>) -> Region {
    let places = layout.components().numbers().filter_map(|number| {
        let place = layout.place(number)?;
        Some((number, (place.offset() as u32, place.size() as u32)))
    });
    Region { len: layout.len() as u32, places: places.collect() }
}

/// The error, with the number of the component beside the name.
#[must_use]
pub fn explain(why: &PlanError) -> String {
    let list = |set: &Components| numbers(set.bits()).map(component).collect::<Vec<_>>().join(", ");
    match why {
        PlanError::NotEnumerated(set) => format!("this CPU does not have {}", list(set)),
        PlanError::Undescribed(set) => format!("CPUID leaf 0xd does not describe {}", list(set)),
        PlanError::Misplaced { component, offset } => {
            format!("{} cannot lie at offset {offset}", list(component))
        }
        PlanError::WrongSize { component, size } => {
            format!("{} cannot have {size} bytes", list(component))
        }
        why => why.to_string(),
    }
}
