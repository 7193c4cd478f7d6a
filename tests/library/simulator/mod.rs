//! Tests of the simulator over HTTP, one for each rule of WeChat.

mod account;
mod authorize;
mod control;
mod faults;
mod harness;
mod user_tokens;
