//! The tests of `examples/testing.rs`, which are there to be copied, pass.
//!
//! They run from here because of an example that is marked as a test, cargo builds the tests only:
//! the program, which `tests/examples.rs` starts, would then be missing.

#![allow(clippy::unwrap_used)]

#[path = "../examples/testing.rs"]
#[allow(dead_code)]
mod testing;
