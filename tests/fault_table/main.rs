//! The fault table of `docs/faults.md`. Each test causes one fault under load, measures what users
//! see, and prints a row. `tests/fault-table` prints all rows as Markdown.

#![allow(unreachable_pub)]

mod harness;
mod login;
mod processes;
mod redis;
#[path = "../support/mod.rs"]
mod support;
mod wechat;
