//! Tests of the pushes, from single functions to real HTTP.

mod bounds;
mod cipher;
mod fixtures;
mod http;
mod keys;
#[path = "../../../../tests/support/log_lines.rs"]
#[allow(unreachable_pub)]
mod log_lines;
mod receiver;
mod vectors;
mod xml;
