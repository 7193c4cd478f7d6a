//! Limits that all processes of an account share.

use std::time::Duration;

use crate::credential::AppId;

/// A limited number of uses that all processes of an account share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// The account whose processes share the quota.
    pub app: AppId,
    /// The name of the limited operation. The name of a daily quota contains the day, so that each
    /// day has its own quota.
    pub purpose: Box<str>,
    /// Maximum number of uses in one window.
    pub limit: u32,
    /// Length of the window in which uses are counted. A window starts at its first use.
    pub window: Duration,
}
