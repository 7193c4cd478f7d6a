//! Tests that call the library's public API, with the simulator in the same process.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod account;
mod layer;
mod login;
mod platform;
// The module `tower_wechat::testing` exists only with debug assertions.
#[cfg(debug_assertions)]
mod own_tests;
mod platform_pushes;
mod simulator;
#[path = "../../examples/testing.rs"]
#[allow(dead_code)]
mod testing;
