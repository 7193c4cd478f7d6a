//! The limits of the page with the links, each load of which costs a call of WeChat.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::failure::Failed;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::platform::PlatformState;
use crate::store::Quota;

/// Default number of pages that all processes show within [`WINDOW`]: 1,000. So 10,000 customers who
/// are all invited at once have seen the page within two hours, and an open page costs 144,000 calls
/// a day at most.
const DEFAULT_PAGES: u32 = 1_000;

/// Time in which pages are counted: ten minutes, as `AuthorizePages::max_pages` says.
const WINDOW: Duration = Duration::from_secs(10 * 60);

/// Shortest and longest time for which no code is fetched after WeChat has refused one.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Time for which no code is fetched if WeChat names none.
const DEFAULT_PAUSE: Duration = Duration::from_secs(30);

/// The limits of the page with the links. Clones share the pause.
#[derive(Debug, Clone)]
pub(super) struct PageAllowance {
    pub(super) pages: u32,
    pause: Arc<Mutex<Option<Pause>>>,
}

/// The time until which this process fetches no code, and the failure of its requests.
#[derive(Debug, Clone, Copy)]
struct Pause {
    until: Timestamp,
    failed: Failed,
}

impl Default for PageAllowance {
    fn default() -> Self {
        Self {
            pages: DEFAULT_PAGES,
            pause: Arc::default(),
        }
    }
}

impl PageAllowance {
    /// Returns the failure of the last code if WeChat is not asked again yet.
    pub(super) fn paused(&self, now: Timestamp) -> Option<Failed> {
        let pause = *self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        pause
            .filter(|pause| now < pause.until && now >= pause.until.saturating_sub(MAX_PAUSE))
            .map(|pause| pause.failed)
    }

    /// Starts a pause if another call would be refused too.
    pub(super) fn note(&self, error: &Error, now: Timestamp) {
        let kind = error.kind();
        let is_limited = kind == ErrorKind::WechatConfig
            || (kind == ErrorKind::WechatUnavailable && error.retry_after().is_some());
        if is_limited {
            let wait = error.retry_after().unwrap_or(DEFAULT_PAUSE);
            let pause = Pause {
                until: now.saturating_add(wait.clamp(MIN_PAUSE, MAX_PAUSE)),
                failed: Failed::from(error),
            };
            *self.pause.lock().unwrap_or_else(PoisonError::into_inner) = Some(pause);
        }
    }

    /// Counts a page. Returns `false` if all processes together have shown too many.
    pub(super) async fn count_page(&self, platform: &PlatformState) -> Result<bool, Error> {
        let quota = Quota {
            app: platform.component.app_id().clone(),
            purpose: "authorize_pages".into(),
            limit: self.pages,
            window: WINDOW,
        };
        platform.store.try_consume(&quota).await
    }
}
