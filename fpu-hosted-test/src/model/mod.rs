//! The models: every interleaving of the protocol over ghost registers.
