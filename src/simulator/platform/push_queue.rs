//! The pushes that wait for their time.

use std::time::Duration;

use tokio::time::Instant;

use super::prepared_push::PreparedPush;

/// Maximum number of pushes that wait for their time: 1,000. Further ones are lost.
const MAX_QUEUED: usize = 1_000;

/// The pushes that wait for their time.
#[derive(Debug, Default)]
pub(in crate::simulator) struct PushQueue(Vec<(Instant, PreparedPush)>);

impl PushQueue {
    pub(super) fn add(&mut self, delay: Duration, push: PreparedPush) {
        if self.0.len() < MAX_QUEUED {
            self.0.push((Instant::now() + delay, push));
        }
    }

    /// Removes the first push whose time has come.
    pub(super) fn take_due(&mut self) -> Option<PreparedPush> {
        let now = Instant::now();
        let position = self.0.iter().position(|(due, _)| *due <= now)?;
        Some(self.0.remove(position).1)
    }

    /// Returns the time at which the next push is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.0.iter().map(|(due, _)| *due).min()
    }
}
