//! The protocol: two words, one comparison, and each step in one place.
//!
//! * [`word`]: a context's word, and the comparison with a CPU's.
//! * [`cpu_word`]: a CPU's word, from which stamps are issued, and its gate.
//! * [`steps`]: what is due when a task leaves or enters; the save, the load and the publishing that goes with each.
//! * [`closed`]: the guard that shuts a CPU to every other user of its registers; also how it comes online and goes offline.
//!
//! Two words are compared, a CPU's words are stored to, and a context is saved or loaded, only here. What a kernel
//! calls (`task`, `session`, `section`, ...) stands above and says *when*; a claim that it drops, or a task that it marks
//! live, goes through the two stores of [`word::TaskWord`]. What is needed of a kernel and of an architecture
//! (`witness`, `backend`) stands below.

pub(crate) mod closed;
pub(crate) mod cpu_word;
pub(crate) mod steps;
pub(crate) mod word;
