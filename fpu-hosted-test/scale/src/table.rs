//! All costs, for people.

use std::fmt::Write as _;

use fpu_core::Area;

use crate::{
    machine::{Apart, Failure, Packed},
    scenarios::{measure, owners_looked_through, Cost, Scenario, SIZES},
};

/// Bytes of an image with x87, SSE and AVX.
pub const IMAGE: usize = 832;

/// One operation over all numbers of CPUs.
#[derive(Debug)]
pub struct Row {
    /// The operation.
    pub name: &'static str,
    /// Its cost with each number of CPUs of [`SIZES`].
    pub costs: Vec<Cost>,
}

/// What was measured.
#[derive(Debug)]
pub struct Table {
    /// The core's own, in the order of [`Scenario::ALL`].
    pub core: Vec<Row>,
    /// Layouts and protocols that do not scale.
    pub controls: Vec<Row>,
}

impl Table {
    /// Measures everything.
    ///
    /// # Errors
    ///
    /// The core refused a call, or a task found other registers.
    pub fn new() -> Result<Self, Failure> {
        let row = |scenario: Scenario| -> Result<Row, Failure> {
            let one = |cpus| measure::<Apart, Area<IMAGE>>(scenario, cpus, IMAGE);
            let costs = SIZES.into_iter().map(one).collect::<Result<_, _>>()?;
            Ok(Row { name: scenario.name(), costs })
        };
        let core = Scenario::ALL.into_iter().map(row).collect::<Result<_, _>>()?;
        let packed = |cpus| measure::<Packed, Area<IMAGE>>(Scenario::Switch, cpus, IMAGE);
        let packed = SIZES.into_iter().map(packed).collect::<Result<_, _>>()?;
        let looked_through = SIZES.into_iter().map(owners_looked_through).collect();
        let controls = vec![
            Row { name: "control: words of 4 CPUs in a line", costs: packed },
            Row { name: "control: all owners looked through", costs: looked_through },
        ];
        Ok(Self { core, controls })
    }
    /// A line for each operation, with some of the numbers of CPUs.
    #[must_use]
    pub fn text(&self) -> String {
        let shown = |at: &usize| at % 2 == 0 || *at == SIZES.len() - 1;
        let mut out = String::from("cache lines from another CPU, per operation\n");
        let mut line = |name: &str, cells: &mut dyn Iterator<Item = String>| {
            let _infallible = write!(out, "{name:<36}");
            for (_, cell) in cells.enumerate().filter(|(at, _)| shown(at)) {
                let _infallible = write!(out, "{cell:>7}");
            }
            out.push('\n');
        };
        line("CPUs", &mut SIZES.iter().map(usize::to_string));
        for row in self.core.iter().chain(&self.controls) {
            line(row.name, &mut row.costs.iter().map(|cost| figure(cost.transfers())));
        }
        out
    }
}

/// Without digits behind the point where there are none.
fn figure(value: f64) -> String {
    let digits = if value.fract() == 0.0 { 0 } else { 2 };
    format!("{value:.digits$}")
}
