//! Sweeps with progress and dry runs.

use super::super::{RedisStore, SweepReport};
use super::task::ScanOptions;
use crate::error::Error;

/// Removes expired tokens as [`RedisStore::sweep`] does, and calls `progress` after each step. A
/// dry run only counts the fields.
///
/// # Errors
/// The same errors as [`RedisStore::sweep`].
pub async fn sweep(
    store: &RedisStore,
    options: &ScanOptions,
    progress: &mut (dyn FnMut(&SweepReport) + Send),
) -> Result<SweepReport, Error> {
    let ScanOptions { app, pause, .. } = options;
    store
        .sweep_with_progress(app, *pause, options.dry_run, progress)
        .await
}
