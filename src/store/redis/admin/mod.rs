//! Tasks of operators on the tokens in Redis: list users, sweep, migrate to the other layout,
//! reseal, import a platform.
//!
//! The program `tower-wechat` calls these functions; applications do not need them. Each task scans
//! the users of an account in small steps while services run. A task writes a value only if the
//! value is still what the task has read.
//!
//! Migrating and resealing also leave a record alone while a process holds its lease. Such records
//! are retried at the end.

mod accounts;
mod import;
mod list;
mod migrate;
mod migration;
mod orphans;
mod read;
mod reseal;
mod scan;
mod secrets;
mod sweep;
mod task;

pub use self::accounts::{AccountReport, PlatformReport, list_accounts, platform_report};
pub use self::import::{ImportReport, import};
pub use self::list::{TokenState, UserReport, estimate_users, list_users, user_report};
pub use self::migrate::migrate;
pub use self::reseal::reseal;
pub use self::secrets::is_platform;
pub use self::sweep::sweep;
pub use self::task::{ProgressFn, ScanOptions, Summary};
