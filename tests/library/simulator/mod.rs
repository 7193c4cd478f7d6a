//! The simulator, over real HTTP: one test per rule of WeChat's.

mod account;
mod authorize;
mod browser;
mod control;
mod faults;
mod user_tokens;
