//! Tests of a third-party platform.

mod accounts;
mod authorize_pages;
mod harness;
