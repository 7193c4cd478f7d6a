//! The position of an app among all apps of a simulator.

/// The position of an app in its [`AppDirectory`](super::apps::AppDirectory). The directory never removes an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct AppIndex(usize);

impl AppIndex {
    /// The first account, whose AppID is [`Simulator::app_id`](super::Simulator::app_id).
    pub(super) const FIRST: Self = Self(0);

    pub(super) const fn at(position: usize) -> Self {
        Self(position)
    }

    pub(super) const fn position(self) -> usize {
        self.0
    }
}
