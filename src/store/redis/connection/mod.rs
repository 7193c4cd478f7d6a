//! Connections to Redis: one server, the primary of a Sentinel group, or a Cluster.
//!
//! [`ConnectOptions`] opens a [`Connection`], which all tasks of a store share.

pub(super) mod certificates;
#[cfg(feature = "cluster")]
mod cluster;
#[cfg(feature = "cluster")]
mod cluster_seeds;
mod connector;
pub(super) mod errors;
mod handshake;
mod open;
mod sentinel;
mod sentinel_discovery;
mod shared;
mod single;
pub(super) mod start_up;
pub(super) mod url;
mod url_parameters;

pub(super) use self::open::ConnectOptions;
pub(super) use self::shared::{Connection, optional_value};
