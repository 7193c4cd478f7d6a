//! Tests of a third-party platform.

mod authorize_pages;
mod harness;
