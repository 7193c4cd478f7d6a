//! What other processes write is known here within milliseconds, where the store tells it.
//!
//! A message can get lost, so nothing rests on it alone. Every entry of the cache is believed for
//! `cache_ttl` after it was read, and longer only while the store proves that nothing was missed:
//! then for `cache_ttl` after the last proof, until its renewal point. Whatever is lost, and
//! however, no process is staler than `cache_ttl`.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Inner;
use crate::store::{Feed, News, Told};

/// After something was missed the whole cache is outdated; not more often than this, however much
/// is thrown at this process.
const BETWEEN_LOSSES: Duration = Duration::from_secs(1);

/// The task that listens, and who ends it: dropping this does.
#[derive(Debug, Default)]
pub(super) struct Listener(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    #[default]
    NotStarted,
    Running(AbortHandle),
    /// This store tells nothing: entries are believed for their bounded time, and no longer.
    Deaf,
}

impl Listener {
    /// Starts the task, unless it runs, or there is no runtime to run it, or nothing to hear.
    pub(super) fn start(&self, inner: &Arc<Inner>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = match &*state {
            State::NotStarted => true,
            // The runtime that ran it may be gone.
            State::Running(task) => task.is_finished(),
            State::Deaf => false,
        };
        if !idle {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        *state = match inner.store.news(&inner.app) {
            Some(feed) => {
                // Before the task runs: what is remembered from here on is covered by the feed.
                if feed.listening {
                    inner.cache.outdate_all();
                }
                let task = runtime.spawn(listen(Arc::downgrade(inner), feed));
                State::Running(task.abort_handle())
            }
            None => State::Deaf,
        };
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let state = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let State::Running(task) = state {
            task.abort();
        }
    }
}

impl Inner {
    /// Somebody has written.
    pub(super) fn hear(&self, news: &News) {
        if news.name.app == self.app && news.name.kind == self.kind {
            self.cache.told(&news.name.id, news.mark);
            self.flights.told(&news.name.id, news.mark);
            if news.mark.is_none() {
                self.observe_count();
            }
        }
    }
}

async fn listen(engine: Weak<Inner>, mut feed: Feed) {
    let mut told = feed.next().await;
    let mut outdate_again_at = Instant::now();
    loop {
        let Some(inner) = engine.upgrade() else {
            return;
        };
        match told {
            Told::Listening => inner.cache.outdate_all(),
            Told::Written(news) => inner.hear(&news),
            Told::Complete(at) => inner.cache.prove(inner.clock.now().before(at.elapsed())),
            Told::Missed => {
                inner.cache.unprove();
                drop(inner);
                tokio::time::sleep_until(outdate_again_at).await;
                outdate_again_at = Instant::now() + BETWEEN_LOSSES;
                feed.catch_up();
                told = Told::Listening;
                continue;
            }
            Told::Ended => return,
        }
        drop(inner);
        told = feed.next().await;
    }
}
