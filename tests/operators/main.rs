//! The program `tower-wechat`, as a process, on a real Redis with real services beside it.

#![allow(unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod migrate;
mod moves;
mod program;
mod reseal;
mod topologies;
mod users;
