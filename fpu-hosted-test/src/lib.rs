//! Hosted tests.
