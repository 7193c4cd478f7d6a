//! Cached results of health checks, which bound the commands that load balancers cause.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

/// The time for which a result is reused.
const RESULT_TTL: Duration = Duration::from_secs(1);

/// The results of the last checks, by the hashes that each check accessed.
#[derive(Default)]
pub(super) struct HealthCache(Mutex<HashMap<Vec<String>, CachedResult>>);

struct CachedResult {
    checked_at: Instant,
    result: Result<(), Error>,
}

impl CachedResult {
    fn is_current(&self) -> bool {
        self.checked_at.elapsed() < RESULT_TTL
    }
}

impl HealthCache {
    /// Returns the result of the last check of these hashes. Returns `None` if it is older than
    /// [`RESULT_TTL`].
    pub(super) fn get(&self, hashes: &[String]) -> Option<Result<(), Error>> {
        let results = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = results.get(hashes).filter(|cached| cached.is_current())?;
        Some(cached.result.clone())
    }

    /// Adds the result of a check, and removes old results.
    pub(super) fn insert(&self, hashes: Vec<String>, result: &Result<(), Error>) {
        let mut results = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        results.retain(|_, cached| cached.is_current());
        let (checked_at, result) = (Instant::now(), result.clone());
        results.insert(hashes, CachedResult { checked_at, result });
    }

    /// Removes all results, because a command has failed since.
    pub(super) fn clear(&self) {
        let mut results = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        results.clear();
    }
}
