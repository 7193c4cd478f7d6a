//! A cache of the results of health checks, which limits the number of Redis commands that the
//! requests of load balancers cause.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

/// Time for which the result of a health check is reused: one second.
const RESULT_TTL: Duration = Duration::from_secs(1);

/// The results of the last health checks, by the hashes to which each check wrote.
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
    /// Returns the result of the last check of these hashes. Returns `None` if there is no result,
    /// or the result is older than [`RESULT_TTL`].
    pub(super) fn get(&self, hashes: &[String]) -> Option<Result<(), Error>> {
        let results = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = results.get(hashes).filter(|cached| cached.is_current())?;
        Some(cached.result.clone())
    }

    /// Adds the result of a check of these hashes. Removes results older than [`RESULT_TTL`].
    pub(super) fn insert(&self, hashes: Vec<String>, result: &Result<(), Error>) {
        let mut results = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        results.retain(|_, cached| cached.is_current());
        let (checked_at, result) = (Instant::now(), result.clone());
        results.insert(hashes, CachedResult { checked_at, result });
    }

    /// Removes all results. Called after a Redis command has failed, because the results are from
    /// before the failure.
    pub(super) fn clear(&self) {
        let mut results = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        results.clear();
    }
}
