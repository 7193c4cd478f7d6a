//! Lifetimes of sessions, which determine how long the store keeps the time of a logout.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Default maximum time that a session lasts after its login, including all extensions: 90 days.
pub(crate) const DEFAULT_MAX_SESSION_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3_600);

/// Lifetime of the session of a virtual user of a snapshot page (快照页): two hours, as long as the
/// user's token. The session is never extended.
pub(crate) const SNAPSHOT_SESSION_LIFETIME: Duration = Duration::from_secs(2 * 3_600);

/// Maximum lifetime of all sessions that this process issues, in seconds. Accesses are `Relaxed`,
/// because no other memory depends on the number.
static LONGEST_SESSION_SECONDS: AtomicU64 = AtomicU64::new(DEFAULT_MAX_SESSION_LIFETIME.as_secs());

/// Records that this process issues sessions with this maximum lifetime.
pub(crate) fn note_session_lifetime(max_lifetime: Duration) {
    LONGEST_SESSION_SECONDS.fetch_max(max_lifetime.as_secs(), Ordering::Relaxed);
}

/// Returns the time for which the store must keep the time of a logout everywhere: the maximum
/// lifetime of any session that began before the logout.
pub(crate) fn longest_session_lifetime() -> Duration {
    Duration::from_secs(LONGEST_SESSION_SECONDS.load(Ordering::Relaxed))
}
