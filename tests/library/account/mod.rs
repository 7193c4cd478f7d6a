//! Tests of the account's token, its ticket and signatures, over HTTP.

mod budget;
mod cache;
mod center;
mod follower;
mod harness;
mod interop;
mod layer;
mod log;
mod lost;
mod outage;
mod processes;
mod program;
mod refusals;
mod rollover;
mod tickets;
mod trouble;
