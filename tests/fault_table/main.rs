//! The fault table of `docs/faults.md`. Each test makes one fault under load, measures what users see,
//! and prints it as a row; `tests/fault-table` prints them all as Markdown.

#![allow(unreachable_pub)]

mod harness;
mod login;
mod processes;
mod redis;
#[path = "../support/mod.rs"]
mod support;
mod wechat;
