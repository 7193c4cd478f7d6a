//! Tests of the account's token, its ticket and signatures, over HTTP.

mod cache;
mod center;
mod center_of_accounts;
mod config_errors;
mod daily_quota;
mod followed_platform;
mod follower;
mod harness;
mod idle_memory;
pub(crate) mod interop;
mod invalid_reports;
mod layer;
mod log;
mod lost_tokens;
mod outage;
mod processes;
mod program;
mod rollover;
mod tickets;
