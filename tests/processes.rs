//! The demo as real processes: several of them on one real Redis, killed, stopped, cut off, set up
//! wrongly, and asked what its contract says.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "processes/crowds.rs"]
mod crowds;
#[path = "processes/deaths.rs"]
mod deaths;
#[path = "processes/redis_away.rs"]
mod redis_away;
mod support;
#[path = "processes/wechat_down.rs"]
mod wechat_down;
