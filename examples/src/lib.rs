//! Hosted examples.
