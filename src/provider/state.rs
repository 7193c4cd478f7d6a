//! The state of an engine, which all parts of the engine share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::cache::Cache;
use super::config::ProviderConfig;
use super::entry::CacheEntry;
use super::failures::FailureTracker;
use super::single_flight::SingleFlight;
use super::source::CredentialSource;
use crate::background_task::BackgroundTask;
use crate::clock::Clock;
use crate::credential::AppId;
use crate::error::{Error, ErrorKind};
use crate::metrics;
use crate::store::{
    CredentialKey, CredentialKind, CredentialReader, CredentialSlot, CredentialWriter,
    InvalidationSource, LeaseOwner, Store,
};

/// The access that an engine has to its store.
pub(crate) enum StoreAccess {
    /// The engine reads, writes and receives invalidations.
    Full(Arc<dyn Store>),
    /// The engine only reads, because another system renews the credential.
    #[cfg(any(feature = "redis", feature = "platform"))]
    ReadOnly(Arc<dyn CredentialReader>),
    /// The engine reads and writes. The test itself passes invalidations to the engine.
    #[cfg(test)]
    Unsubscribed(Arc<dyn CredentialWriter>),
}

/// The store of an engine, as one handle for each purpose.
struct StoreHandles {
    reader: Arc<dyn CredentialReader>,
    /// Handle for writes. `None` if the engine must not write; such an engine never renews a
    /// credential.
    writer: Option<Arc<dyn CredentialWriter>>,
    invalidations: Option<Arc<dyn InvalidationSource>>,
}

impl From<StoreAccess> for StoreHandles {
    fn from(access: StoreAccess) -> Self {
        match access {
            StoreAccess::Full(store) => Self {
                reader: store.clone(),
                writer: Some(store.clone()),
                invalidations: Some(store),
            },
            #[cfg(any(feature = "redis", feature = "platform"))]
            StoreAccess::ReadOnly(reader) => Self {
                reader,
                writer: None,
                invalidations: None,
            },
            #[cfg(test)]
            StoreAccess::Unsubscribed(store) => Self {
                reader: store.clone(),
                writer: Some(store),
                invalidations: None,
            },
        }
    }
}

/// Engine for one kind of credential of one account. All clones share one state.
#[derive(Clone)]
pub(crate) struct CredentialProvider(pub(super) Arc<ProviderState>);

pub(super) struct ProviderState {
    pub(super) app: AppId,
    pub(super) kind: CredentialKind,
    pub(super) config: ProviderConfig,
    pub(super) clock: Clock,
    pub(super) store: Arc<dyn CredentialReader>,
    /// Handle for writes. `None` if the engine must not write; such an engine never renews a
    /// credential.
    pub(super) writer: Option<Arc<dyn CredentialWriter>>,
    pub(super) invalidations: Option<Arc<dyn InvalidationSource>>,
    /// Owner name of this engine. Each call adds its number to the name and takes its lease under
    /// the result.
    pub(super) lease_owner: LeaseOwner,
    pub(super) source: Box<dyn CredentialSource>,
    pub(super) cache: Cache,
    pub(super) calls: SingleFlight,
    pub(super) failures: FailureTracker,
    /// Number of fresh credentials that requests have read without a call. It selects the reads
    /// whose metrics are recorded.
    pub(super) direct_reads: AtomicU32,
    /// Permits for the concurrent renewals of this engine. A renewal of an unexpired token, for
    /// which no request waits, also needs an early permit.
    pub(super) renewal_permits: Semaphore,
    /// Permits for the concurrent renewals of unexpired tokens, half as many as `renewal_permits`.
    pub(super) early_renewal_permits: Semaphore,
    pub(super) tasks: TaskTracker,
    pub(super) invalidation_listener: BackgroundTask,
    pub(super) maintenance: BackgroundTask,
    /// Gauge of cache entries, to which this engine contributes the entries of its own cache.
    pub(super) cached_gauge: metrics::CachedGauge,
    /// Gauges of this account's credentials of this kind.
    pub(super) account_gauges: metrics::AccountGauges,
}

/// Time after which a caller with an unexpired cached token no longer waits for the store and
/// receives that token: 100 milliseconds. A read of the store normally takes a few milliseconds.
pub(super) const SLOW_STORE_TIMEOUT: Duration = Duration::from_millis(100);

impl ProviderState {
    pub(super) fn new(
        app: AppId,
        kind: CredentialKind,
        config: ProviderConfig,
        clock: Clock,
        store: StoreAccess,
        source: Box<dyn CredentialSource>,
    ) -> Self {
        metrics::describe_metrics();
        let account_gauges = metrics::AccountGauges::new(
            &app,
            kind.as_str(),
            kind.belongs_to_account(),
            config.has_account_gauges,
        );
        let StoreHandles {
            reader,
            writer,
            invalidations,
        } = store.into();
        Self {
            app,
            kind,
            cache: Cache::new(config.cache_capacity, config.cache_ttl),
            clock,
            store: reader,
            writer,
            invalidations,
            lease_owner: LeaseOwner::unique(),
            source,
            calls: SingleFlight::default(),
            failures: FailureTracker::default(),
            direct_reads: AtomicU32::new(0),
            renewal_permits: Semaphore::new(config.max_concurrent_renewals),
            early_renewal_permits: Semaphore::new(config.max_early_renewals()),
            config,
            tasks: TaskTracker::new(),
            invalidation_listener: BackgroundTask::default(),
            maintenance: BackgroundTask::default(),
            cached_gauge: metrics::CachedGauge::new(kind.as_str()),
            account_gauges,
        }
    }

    /// Returns the handle for a write to the store. Fails if another system renews the credential,
    /// because this engine then only reads the store.
    pub(super) fn writer(&self) -> Result<&Arc<dyn CredentialWriter>, Error> {
        self.writer.as_ref().ok_or_else(|| {
            let message = "a token that another system keeps is read and never written";
            Error::configuration(message)
        })
    }

    pub(super) fn credential_key(&self, id: &str) -> CredentialKey {
        CredentialKey {
            app: self.app.clone(),
            kind: self.kind,
            id: id.into(),
        }
    }

    pub(super) fn slot(&self, id: &str) -> CredentialSlot {
        self.slot_of(id.into())
    }

    pub(super) fn slot_of(&self, id: Box<str>) -> CredentialSlot {
        let (app, kind) = (self.app.clone(), self.kind);
        CredentialSlot {
            key: CredentialKey { app, kind, id },
            margin: self.config.margin,
        }
    }

    pub(super) fn load_timeout_error(&self) -> Error {
        let wait = self.config.load_timeout;
        Error::new(
            ErrorKind::WechatUnavailable,
            format!("no usable token came within {wait:?}; its renewal goes on"),
        )
        .with_retry_after(Duration::from_secs(1))
    }

    pub(super) fn store_timeout_error(&self) -> Error {
        let wait = self.config.load_timeout;
        let message = format!("the store did not answer within {wait:?}");
        Error::store_unavailable(message).with_retry_after(Duration::from_secs(1))
    }

    /// Sets the gauge of cached credentials to the number of cache entries.
    pub(super) fn update_cached_gauge(&self) {
        self.cached_gauge.set(self.cache.len());
    }

    pub(super) fn log_store_unavailable(&self, error: &Error) {
        tracing::debug!(target: "tower_wechat::renewal", app = %self.app, %error, "served a cached token; the store was unavailable");
    }

    /// Records the metrics of a read if the read belongs to the sample. The sample has the first
    /// 1,024 reads, one in 64 of the later reads, and every read of an account's credential.
    /// Metrics of all reads would cost about as much as the reads.
    pub(super) fn sample_metrics(&self, entry: &CacheEntry) {
        // `Relaxed` is enough, because the count only selects reads for the sample.
        let reads = self.direct_reads.fetch_add(1, Ordering::Relaxed);
        if reads < 1_024 || reads.is_multiple_of(64) || self.kind.belongs_to_account() {
            self.record_metrics(entry);
        }
    }

    /// Sets the gauge of cached credentials and, for a credential of the account, the gauge of its
    /// expiry.
    pub(super) fn record_metrics(&self, entry: &CacheEntry) {
        self.update_cached_gauge();
        self.account_gauges
            .set_expiry(entry.lifetime().expires_at());
    }
}
