//! Tests of third-party platforms: each shows one rule of WeChat, or one fault of its pushes.

mod authorizations;
mod component_tokens;
mod control;
mod harness;
mod interop;
mod logins;
mod pages;
mod pushes;
mod receiver;
