//! Tests of the simulator over HTTP: each shows one rule of WeChat.

mod account;
mod apps;
mod authorize;
mod control;
mod faults;
mod harness;
mod platform;
mod user_tokens;
mod website;
