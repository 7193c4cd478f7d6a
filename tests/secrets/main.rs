//! The demo lives through all that it can, its log at `trace`, and no secret shows anywhere: not
//! in logs, ours or other libraries', not in bodies, metrics, panics or `Debug` output.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

#[path = "../login/client.rs"]
mod client;
mod debug;
mod life;
mod search;
#[path = "../support/mod.rs"]
mod support;
