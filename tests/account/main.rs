//! The account side, over real HTTP: the account's token, the ticket, signatures.

#[path = "../support/mod.rs"]
mod support;

mod budget;
mod center;
mod follower;
mod interop;
mod layer;
mod processes;
mod refusals;
mod rig;
mod rollover;
mod tickets;
mod trouble;
