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

/// R4: when the renewal of a credential starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RenewalTiming {
    /// Early and jittered, so that a crowd obtained together is not renewed together.
    Jittered,
    /// At the renewal point.
    AtRenewalTime,
    /// Just behind it: for a credential that its issuer repeats until that very point, by a clock
    /// that is not ours.
    AfterRenewalTime,
}

const DEFAULT_CACHE_TTL: Duration = Duration::from_secs(60);
const DEFAULT_LOAD_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_LEASE_DURATION: Duration = Duration::from_secs(10);
const DEFAULT_RENEWAL_TIMEOUT: Duration = Duration::from_secs(8);

/// The engine's times and sizes.
#[derive(Debug, Clone)]
pub(crate) struct ProviderConfig {
    /// The margin that renewal points keep from the true expiry.
    pub(crate) margin: Duration,
    pub(crate) timing: RenewalTiming,
    /// The longest that an entry of the cache is believed without a word of the store: neither
    /// read, nor proved current by its news.
    pub(crate) cache_ttl: Duration,
    /// How many credentials the cache holds.
    pub(crate) cache_capacity: usize,
    /// How long a caller waits for a credential that has to be renewed.
    pub(crate) load_timeout: Duration,
    /// How long the right to renew is held; outlives `renewal`.
    pub(crate) lease_duration: Duration,
    /// How long a renewal with all its tries may take.
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

    /// R7: a lease outlives the calls that it covers, so a renewal takes four fifths of it at most.
    pub(crate) fn set_lease_duration(&mut self, lease: Duration) {
        self.lease_duration = lease.clamp(MIN_LEASE_DURATION, MAX_LEASE_DURATION);
        self.renewal_timeout = self.lease_duration * 4 / 5;
    }
}

/// What the engine may do with its store.
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

/// The engine for one kind of credential of one account. Clones share everything.
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
    /// What the names of this engine's leases start with.
    pub(super) lease_owner: LeaseOwner,
    pub(super) source: Box<dyn CredentialSource>,
    pub(super) cache: Cache,
    pub(super) calls: SingleFlight,
    pub(super) failures: FailureTracker,
    /// Counts the credentials that callers have read without a flight.
    pub(super) direct_reads: AtomicU32,
    /// Bounds the renewals of this process that run at once, and those among them for which nobody
    /// waits.
    pub(super) renewal_permits: Semaphore,
    pub(super) early_renewal_permits: Semaphore,
    pub(super) tasks: TaskTracker,
    pub(super) invalidation_listener: InvalidationListener,
    pub(super) maintenance: CacheMaintenance,
    /// Tells the operator how many credentials the cache holds.
    pub(super) cached_gauge: metrics::CachedGauge,
}

/// How long a caller waits for a slow store while this process still holds a token that is alive.
pub(super) const SLOW_STORE_TIMEOUT: Duration = Duration::from_millis(100);

/// The bounds of a lease. A store cannot keep one for no time at all, and no process that has died
/// may keep the others waiting for longer than this.
const MIN_LEASE_DURATION: Duration = Duration::from_millis(100);
const MAX_LEASE_DURATION: Duration = Duration::from_secs(3_600);

/// How many renewals of one process may run at once.
const MAX_CONCURRENT_RENEWALS: usize = 512;

/// How many of them may be renewals of tokens that are alive, for which nobody waits. While WeChat
/// does not answer, each renewal takes its full time: the rest is for users whose token has
/// expired.
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
        // A panel of nothing looks like a panel that is broken.
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
    /// Starts the tasks of the engine, unless they run. Where the engine was made there may have
    /// been no runtime yet.
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
