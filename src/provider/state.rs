//! The state that all parts of the engine share, and its configuration.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::cache::Cache;
use super::failures::FailureTracker;
use super::invalidation::InvalidationListener;
use super::maintenance::CacheMaintenance;
use super::single_flight::SingleFlight;
use super::source::CredentialSource;
use crate::clock::{Clock, Timestamp};
use crate::credential::AppId;
use crate::error::{Error, ErrorKind};
use crate::metrics;
use crate::store::{
    CredentialKey, CredentialKind, CredentialReader, CredentialSlot, CredentialWriter,
    InvalidationSource, LeaseOwner, Store,
};

/// Point in the lifetime of a credential at which its renewal starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RenewalTiming {
    /// Before the renewal point, with jitter, so that tokens obtained together are not renewed
    /// together.
    Jittered,
    /// At the renewal point.
    AtRenewalTime,
    /// Shortly after the renewal point: for an issuer that returns the same credential until that
    /// point, by its own clock.
    AfterRenewalTime,
}

const DEFAULT_CACHE_TTL: Duration = Duration::from_secs(60);
const DEFAULT_LOAD_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_LEASE_DURATION: Duration = Duration::from_secs(10);
const DEFAULT_RENEWAL_TIMEOUT: Duration = Duration::from_secs(8);

/// Durations and sizes of an engine.
#[derive(Debug, Clone)]
pub(crate) struct ProviderConfig {
    /// Time between the renewal point and the expiry of a credential.
    pub(crate) margin: Duration,
    pub(crate) timing: RenewalTiming,
    /// Maximum time for which a cache entry is served without confirmation from the store, by a
    /// read or by a heartbeat of the invalidation channel.
    pub(crate) cache_ttl: Duration,
    /// Maximum number of cache entries.
    pub(crate) cache_capacity: usize,
    /// Maximum time for which a caller waits for a credential.
    pub(crate) load_timeout: Duration,
    /// Duration of a lease. Longer than `renewal_timeout`.
    pub(crate) lease_duration: Duration,
    /// Maximum duration of a renewal with all its retries.
    pub(crate) renewal_timeout: Duration,
}

impl ProviderConfig {
    /// Returns the settings of a kind of credential, with the default times.
    pub(crate) fn new(margin: Duration, timing: RenewalTiming, cache_capacity: usize) -> Self {
        Self {
            margin,
            timing,
            cache_capacity,
            cache_ttl: DEFAULT_CACHE_TTL,
            load_timeout: DEFAULT_LOAD_TIMEOUT,
            lease_duration: DEFAULT_LEASE_DURATION,
            renewal_timeout: DEFAULT_RENEWAL_TIMEOUT,
        }
    }

    /// Sets the duration of a lease, within its bounds. A renewal may take four fifths of it, so
    /// that the lease outlives the calls it covers (one renewal).
    pub(crate) fn set_lease_duration(&mut self, lease: Duration) {
        self.lease_duration = lease.clamp(MIN_LEASE_DURATION, MAX_LEASE_DURATION);
        self.renewal_timeout = self.lease_duration * 4 / 5;
    }
}

/// Access of an engine to its store.
pub(crate) enum StoreAccess {
    /// Reads, writes and receives invalidations.
    Full(Arc<dyn Store>),
    /// Only reads: another system renews the credential.
    #[cfg(feature = "redis")]
    ReadOnly(Arc<dyn CredentialReader>),
    /// Reads and writes. The test passes invalidations to the engine itself.
    #[cfg(test)]
    Unsubscribed(Arc<dyn CredentialWriter>),
}

/// The store of an engine, by purpose.
struct StoreHandles {
    reader: Arc<dyn CredentialReader>,
    /// `None` if the engine must not write. Such an engine never renews.
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
            #[cfg(feature = "redis")]
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

/// Engine for one kind of credential of one account. Clones share the state.
#[derive(Clone)]
pub(crate) struct CredentialProvider(pub(super) Arc<ProviderState>);

pub(super) struct ProviderState {
    pub(super) app: AppId,
    pub(super) kind: CredentialKind,
    pub(super) config: ProviderConfig,
    pub(super) clock: Clock,
    pub(super) store: Arc<dyn CredentialReader>,
    /// `None` if the engine must not write. Such an engine never renews.
    pub(super) writer: Option<Arc<dyn CredentialWriter>>,
    pub(super) invalidations: Option<Arc<dyn InvalidationSource>>,
    /// Prefix of the names under which this process takes leases.
    pub(super) lease_owner: LeaseOwner,
    pub(super) source: Box<dyn CredentialSource>,
    pub(super) cache: Cache,
    pub(super) calls: SingleFlight,
    pub(super) failures: FailureTracker,
    /// Number of credentials that requests read without a call. Selects the reads whose metrics are
    /// recorded.
    pub(super) direct_reads: AtomicU32,
    /// Limits the concurrent renewals of this process. `early_renewal_permits` limits the share of
    /// tokens that have not expired, for which no request waits.
    pub(super) renewal_permits: Semaphore,
    pub(super) early_renewal_permits: Semaphore,
    pub(super) tasks: TaskTracker,
    pub(super) invalidation_listener: InvalidationListener,
    pub(super) maintenance: CacheMaintenance,
    /// Gauge of the number of cache entries.
    pub(super) cached_gauge: metrics::CachedGauge,
}

/// Time after which a caller receives the unexpired token of this process instead of waiting longer
/// for the store.
pub(super) const SLOW_STORE_TIMEOUT: Duration = Duration::from_millis(100);

/// Bounds of the lease duration. A store cannot keep a lease of zero length. A process that crashed
/// must not block the others for longer than the maximum.
const MIN_LEASE_DURATION: Duration = Duration::from_millis(100);
const MAX_LEASE_DURATION: Duration = Duration::from_secs(3_600);

/// Maximum number of concurrent renewals of one process.
const MAX_CONCURRENT_RENEWALS: usize = 512;

/// Maximum number of concurrent renewals of unexpired tokens. While WeChat does not answer, each
/// renewal takes its full time; the remaining permits are for users whose token has expired.
const MAX_EARLY_RENEWALS: usize = MAX_CONCURRENT_RENEWALS / 2;

impl CredentialProvider {
    pub(crate) fn new(
        app: AppId,
        kind: CredentialKind,
        settings: ProviderConfig,
        clock: Clock,
        store: StoreAccess,
        source: Box<dyn CredentialSource>,
    ) -> Self {
        metrics::describe_metrics();
        // Set the gauges to a defined value: dashboards show a missing series as an error.
        let unix_epoch = Timestamp::from_millis(0);
        metrics::set_resting_until(&app, kind.as_str(), unix_epoch);
        if kind.belongs_to_account() {
            metrics::set_expiry(&app, kind.as_str(), unix_epoch);
        }
        let StoreHandles {
            reader,
            writer,
            invalidations,
        } = store.into();
        let provider = Self(Arc::new(ProviderState {
            app,
            kind,
            cache: Cache::new(settings.cache_capacity, settings.cache_ttl),
            config: settings,
            clock,
            store: reader,
            writer,
            invalidations,
            lease_owner: LeaseOwner::unique(),
            source,
            calls: SingleFlight::default(),
            failures: FailureTracker::default(),
            direct_reads: AtomicU32::new(0),
            renewal_permits: Semaphore::new(MAX_CONCURRENT_RENEWALS),
            early_renewal_permits: Semaphore::new(MAX_EARLY_RENEWALS),
            tasks: TaskTracker::new(),
            invalidation_listener: InvalidationListener::default(),
            maintenance: CacheMaintenance::default(),
            cached_gauge: metrics::CachedGauge::new(kind.as_str()),
        }));
        provider.0.start_background_tasks();
        provider
    }
}

impl ProviderState {
    /// Starts the background tasks unless they run. There may have been no runtime when the engine
    /// was created, so each request tries again.
    pub(super) fn start_background_tasks(self: &Arc<Self>) {
        self.invalidation_listener.start(self);
        self.maintenance.start(self);
    }

    /// Returns the store for a write of the caller's. Fails if the engine must not write.
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
}
