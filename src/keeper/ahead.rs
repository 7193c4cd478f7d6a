//! A task that keeps one credential at hand, so that no request has to wait for it.
//!
//! Requests renew what they use, so users' tokens need nobody to look after them. The account's own
//! credentials are few and always needed: a process that has been idle for an hour must answer its
//! next request as fast as a busy one.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::Keeper;

/// How often the task looks at what this process holds: a look at memory, no more.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The store is asked again when the cache believes an entry for less than this.
const REFRESH_BEFORE: Duration = Duration::from_secs(3);

/// The task, which ends when this is dropped. A renewal that it began is a flight of its own and
/// goes on (R3).
#[derive(Debug)]
pub(crate) struct Ahead(AbortHandle);

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Keeper {
    /// Starts the task on the current runtime; none, where there is no runtime.
    pub(crate) fn keep_ahead(&self, id: &'static str) -> Option<Ahead> {
        let runtime = Handle::try_current().ok()?;
        let keeper = self.clone();
        let task = runtime.spawn(async move {
            loop {
                if keeper.lapses_soon(id) {
                    // What went wrong is told where it happens; the next look tries again, as far
                    // as back-off and cool-down let it.
                    let _ = keeper.look(id).await;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Some(Ahead(task.abort_handle()))
    }

    fn lapses_soon(&self, id: &str) -> bool {
        let now = self.clock().now();
        self.cached(id)
            .is_none_or(|held| held.believed_until() < now.after(REFRESH_BEFORE))
    }
}
