//! Work of operators on the tokens in Redis: list users, sweep, migrate to the other layout,
//! reseal.
//!
//! The program `tower-wechat` calls these functions; applications do not need them. Each task scans
//! the users of an account in small steps while services run. A task writes a record only if the
//! record is still what the task has read, and only while no process holds its lease. Records whose
//! lease is held are retried at the end.

mod list;
mod migrate;
mod migration;
mod orphans;
mod read;
mod reseal;
mod scan;
mod sweep;
mod task;

pub use self::list::{TokenState, UserReport, estimate_users, list_users, user_report};
pub use self::migrate::migrate;
pub use self::reseal::reseal;
pub use self::sweep::sweep;
pub use self::task::{ProgressFn, ScanOptions, Summary};
