//! Lifetimes of sessions, which decide how long logouts and virtual users are remembered.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Default time that a session lasts after its login, however often it is issued again.
pub(crate) const DEFAULT_MAX_SESSION_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3_600);

/// Time that the session of a snapshot page's virtual user (快照页) lasts. It is never extended.
pub(crate) const SNAPSHOT_SESSION_LIFETIME: Duration = Duration::from_secs(2 * 3_600);

/// Maximum time that any session of this process lasts after its login, in seconds. `Relaxed` is
/// enough, because the number guards no other memory.
static LONGEST_SESSION_SECONDS: AtomicU64 = AtomicU64::new(DEFAULT_MAX_SESSION_LIFETIME.as_secs());

/// Records that this process issues sessions of this maximum lifetime.
pub(crate) fn note_session_lifetime(max_lifetime: Duration) {
    LONGEST_SESSION_SECONDS.fetch_max(max_lifetime.as_secs(), Ordering::Relaxed);
}

/// Returns how long the store has to remember a logout everywhere: as long as any session from before
/// the logout could last.
pub(crate) fn longest_session_lifetime() -> Duration {
    Duration::from_secs(LONGEST_SESSION_SECONDS.load(Ordering::Relaxed))
}
