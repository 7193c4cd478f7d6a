//! The simulator, over real HTTP: one test per rule of WeChat's.

#[path = "simulator/account.rs"]
mod account;
#[path = "simulator/authorize.rs"]
mod authorize;
#[path = "simulator/browser.rs"]
mod browser;
#[path = "simulator/control.rs"]
mod control;
#[path = "simulator/faults.rs"]
mod faults;
#[path = "simulator/user_tokens.rs"]
mod user_tokens;
