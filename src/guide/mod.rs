//! Guides: how to do things, with code that is compiled.
//!
//! Nothing here is called; it is for reading.

#[cfg(feature = "axum")]
#[doc = include_str!("login.md")]
pub mod login {}

#[cfg(feature = "redis")]
#[doc = include_str!("redis.md")]
pub mod redis {}

#[doc = include_str!("account.md")]
pub mod account {}

#[cfg(feature = "simulator")]
#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("operations.md")]
pub mod operations {}

#[doc = include_str!("observability.md")]
pub mod observability {}

#[cfg(feature = "redis")]
#[doc = include_str!("spring_boot.md")]
pub mod spring_boot {}

#[doc = include_str!("scaling.md")]
pub mod scaling {}
