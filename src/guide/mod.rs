//! Guides: how to do things, with code that is compiled.
//!
//! Nothing here is called; it is for reading.

#[doc = include_str!("observability.md")]
pub mod observability {}
