//! A state of the machine as one number, the same for all states from which the core behaves alike.

use super::{
    image::{Symbol, FIRST, INITIAL, TORN},
    words::{Claim, FAR, GATE_OPEN, PLENTY},
};

/// The most CPUs that a state has room for.
pub(super) const CPUS: usize = 3;
/// The most contexts.
pub(super) const CONTEXTS: usize = 4;

/// A CPU as it is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct CpuState {
    pub(super) gate: u64,
    pub(super) open: bool,
    pub(super) holds: Symbol,
    /// The slot of the last restore, while the registers are unmodified since.
    pub(super) from: Option<usize>,
    pub(super) current: Option<usize>,
    /// How many stamps are left.
    pub(super) left: u8,
    pub(super) disables: bool,
    /// Which context that it owns was loaded last.
    pub(super) last: u64,
}
impl CpuState {
    /// Whether code can use its registers.
    pub(super) fn is_open(&self) -> bool {
        self.gate == GATE_OPEN && self.open
    }
}

/// A context as it is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ContextState {
    pub(super) claim: Claim,
    pub(super) memory: Symbol,
    pub(super) expected: Symbol,
    pub(super) room: bool,
}

impl ContextState {
    /// Tells whether the registers of that CPU hold the context, if the CPU is open.
    pub(super) fn held(&self, by: usize) -> bool {
        matches!(self.claim, Claim::On { cpu, ahead: 0, .. } if cpu == by)
    }
    /// Tells whether memory is valid.
    pub(super) fn saved(&self) -> bool {
        !matches!(self.claim, Claim::On { memory: false, .. } | Claim::Lost { .. })
    }
}

/// The machine as it is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct State {
    pub(super) cpus: [CpuState; CPUS],
    pub(super) contexts: [ContextState; CONTEXTS],
}

/// Which old place is at each new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) cpus: [u8; CPUS],
    pub(super) contexts: [u8; CONTEXTS],
}

impl Order {
    pub(super) const SAME: Self = Self { cpus: [0, 1, 2], contexts: [0, 1, 2, 3] };
    /// The order that `later` makes of this one.
    pub(super) fn then(self, later: Self) -> Self {
        Self {
            cpus: later.cpus.map(|place| self.cpus[usize::from(place)]),
            contexts: later.contexts.map(|place| self.contexts[usize::from(place)]),
        }
    }
    /// Every order of the CPUs among themselves, with every order of the tasks; the guest keeps its place.
    pub(super) fn all(cpus: usize, tasks: usize) -> Vec<Self> {
        let mut all = Vec::new();
        for c in permutations(cpus) {
            for t in permutations(tasks) {
                let mut order = Self::SAME;
                order.cpus[..cpus].copy_from_slice(&c);
                order.contexts[..tasks].copy_from_slice(&t);
                all.push(order);
            }
        }
        all
    }
}

fn permutations(n: usize) -> Vec<Vec<u8>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in permutations(n - 1) {
        for place in 0..n {
            let mut longer = shorter.clone();
            longer.insert(place, n as u8 - 1);
            all.push(longer);
        }
    }
    all
}

/// A state with symbols and stamps renumbered.
pub(super) type Packed = u128;

/// Puts numbers side by side.
struct Pack(Packed, u32);
impl Pack {
    fn put(&mut self, value: usize, bits: u32) {
        debug_assert!(value < 1 << bits);
        self.0 |= (value as Packed) << self.1;
        self.1 += bits;
    }
}
struct Unpack(Packed);
impl Unpack {
    fn take(&mut self, bits: u32) -> usize {
        let value = self.0 as usize & ((1 << bits) - 1);
        self.0 >>= bits;
        value
    }
}

impl State {
    /// The smallest number that one of the orders gives, and that order.
    pub(super) fn pack(&self, orders: &[Order], cpus: usize, contexts: usize) -> (Packed, Order) {
        let mut best = (Packed::MAX, Order::SAME);
        for &order in orders {
            let packed = self.pack_in(order, cpus, contexts);
            if packed < best.0 {
                best = (packed, order);
            }
        }
        best
    }

    fn pack_in(&self, order: Order, cpus: usize, contexts: usize) -> Packed {
        let place = |places: &[u8], old: usize| {
            places.iter().position(|&place| usize::from(place) == old).unwrap_or(0)
        };
        // If a context expects the contents, the first such context names them. If none does, all
        // such contents are alike.
        let name = |symbol: Symbol| match symbol {
            INITIAL => 1,
            _ => (0..contexts)
                .find(|&c| self.contexts[usize::from(order.contexts[c])].expected == symbol)
                .map_or(0, |c| 2 + c),
        };
        let mut pack = Pack(0, 0);
        for &c in &order.cpus[..cpus] {
            let cpu = &self.cpus[usize::from(c)];
            // The top bit is that of an open gate, the others the kinds of a shut one.
            pack.put((cpu.gate >> 61 | cpu.gate & 3) as usize, 3);
            pack.put(usize::from(cpu.open), 1);
            pack.put(name(cpu.holds), 3);
            pack.put(cpu.from.map_or(0, |slot| 1 + place(&order.contexts, slot)), 3);
            pack.put(cpu.current.map_or(0, |task| 1 + place(&order.contexts, task)), 3);
            pack.put(usize::from(cpu.left), 4);
            pack.put(usize::from(cpu.disables), 1);
            pack.put(cpu.last as usize, 1);
        }
        for &c in &order.contexts[..contexts] {
            let context = &self.contexts[usize::from(c)];
            let (kind, cpu, ahead) = match context.claim {
                Claim::Nowhere => (0, 0, 0),
                Claim::On { cpu, ahead, memory } => (1 + usize::from(memory), cpu, ahead),
                Claim::Lost { cpu } => (3, cpu, 0),
            };
            let cpu = if kind == 0 { 0 } else { place(&order.cpus, cpu) };
            pack.put(kind, 2);
            pack.put(cpu, 2);
            pack.put(usize::from(ahead.min(FAR)), 4);
            pack.put(name(context.memory), 3);
            pack.put(name(context.expected), 3);
            pack.put(usize::from(context.room), 1);
        }
        pack.0
    }

    /// The state of a number.
    pub(super) fn unpack(packed: Packed, cpus: usize, contexts: usize) -> Self {
        let mut from = Unpack(packed);
        let symbol = |name: usize| match name {
            0 => TORN,
            1 => INITIAL,
            n => FIRST + n as Symbol,
        };
        let mut state = Self::EMPTY;
        for cpu in &mut state.cpus[..cpus] {
            let gate = from.take(3) as u64;
            cpu.gate = (gate & 4) << 61 | gate & 3;
            cpu.open = from.take(1) != 0;
            cpu.holds = symbol(from.take(3));
            cpu.from = from.take(3).checked_sub(1);
            cpu.current = from.take(3).checked_sub(1);
            cpu.left = from.take(4) as u8;
            cpu.disables = from.take(1) != 0;
            cpu.last = from.take(1) as u64;
        }
        for context in &mut state.contexts[..contexts] {
            let (kind, cpu, ahead) = (from.take(2), from.take(2), from.take(4) as u8);
            context.claim = match kind {
                0 => Claim::Nowhere,
                3 => Claim::Lost { cpu },
                _ => Claim::On { cpu, ahead, memory: kind == 2 },
            };
            context.memory = symbol(from.take(3));
            context.expected = symbol(from.take(3));
            context.room = from.take(1) != 0;
        }
        state
    }

    pub(super) const EMPTY: Self = Self {
        cpus: [CpuState {
            gate: 0,
            open: false,
            holds: TORN,
            from: None,
            current: None,
            left: PLENTY,
            disables: true,
            last: 0,
        }; CPUS],
        contexts: [ContextState {
            claim: Claim::Nowhere,
            memory: INITIAL,
            expected: INITIAL,
            room: false,
        }; CONTEXTS],
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_loses_names_and_nothing_else() {
        let mut state = State::EMPTY;
        state.cpus[0] = CpuState {
            gate: GATE_OPEN,
            open: true,
            holds: 90,
            from: Some(1),
            current: Some(0),
            left: 7,
            disables: true,
            last: 0,
        };
        state.cpus[1] = CpuState {
            gate: 2,
            open: false,
            holds: 91,
            from: None,
            current: None,
            left: PLENTY,
            disables: false,
            last: 0,
        };
        state.contexts[0].claim = Claim::On { cpu: 0, ahead: 0, memory: true };
        state.contexts[1].claim = Claim::Lost { cpu: 1 };
        (state.contexts[1].memory, state.contexts[1].expected) = (90, 90);
        state.contexts[2].claim = Claim::On { cpu: 1, ahead: 3, memory: false };
        let one = [Order::SAME];
        let (packed, _) = state.pack(&one, 2, 3);
        let again = State::unpack(packed, 2, 3);
        assert_eq!(again.pack(&one, 2, 3).0, packed);
        assert_eq!(again.cpus[0].holds, again.contexts[1].expected);
        assert_eq!((again.cpus[1].holds, again.contexts[0].memory), (TORN, INITIAL));
        assert_eq!(again.contexts[2].claim, state.contexts[2].claim);
    }

    #[test]
    fn any_order_of_cpus_and_tasks_is_the_same_state() {
        let orders = Order::all(3, 2);
        assert_eq!(orders.len(), 12);
        let mut state = State::EMPTY;
        state.cpus[2] = CpuState {
            gate: GATE_OPEN,
            open: true,
            holds: 90,
            from: Some(1),
            current: Some(1),
            left: 7,
            disables: true,
            last: 0,
        };
        state.contexts[1].claim = Claim::On { cpu: 2, ahead: 0, memory: false };
        state.contexts[1].expected = 90;
        let mut other = State::EMPTY;
        other.cpus[0] = CpuState { from: Some(0), current: Some(0), ..state.cpus[2] };
        other.contexts[0].claim = Claim::On { cpu: 0, ahead: 0, memory: false };
        other.contexts[0].expected = 77;
        other.cpus[0].holds = 77;
        let (a, order) = state.pack(&orders, 3, 3);
        assert_eq!(a, other.pack(&orders, 3, 3).0);
        // The order says where everything was.
        let seen = State::unpack(a, 3, 3);
        let at = seen.cpus.iter().position(|cpu| cpu.current.is_some()).unwrap();
        assert_eq!(order.cpus[at], 2);
        assert_eq!(Order::SAME.then(order), order);
    }
}
