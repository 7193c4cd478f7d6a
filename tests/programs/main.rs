//! Tests that start programs: the demo, the other examples and the operators' program.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod commands;
mod examples;
mod interop;
mod observability;
#[cfg(feature = "cli")]
mod operators;
mod processes;
mod recipes;
mod secrets;
