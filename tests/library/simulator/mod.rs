//! The simulator, over real HTTP: one test per rule of WeChat's.

mod account;
mod authorize;
mod control;
mod faults;
mod harness;
mod user_tokens;
