//! Limits that all processes of an account share.

use std::time::Duration;

use crate::credential::AppId;

/// A limited number of uses that all processes of an account share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// The account.
    pub app: AppId,
    /// The name of what is limited. The purpose of a daily quota contains the day.
    pub purpose: Box<str>,
    /// Maximum number of uses in one window.
    pub limit: u32,
    /// The length of a window, which starts at its first use.
    pub window: Duration,
}
