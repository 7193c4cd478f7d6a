//! Tests of Sentinel, Cluster and TLS with real servers: fail-overs under load, moving slots, wrong
//! set-ups, and the demo on each.

#![allow(unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod cluster;
mod demo;
mod harness;
mod mistakes;
mod moved;
mod resp2;
mod restricted;
mod scripts;
mod sentinel;
mod tls;
mod url_parameters;
