//! The configuration of an engine: durations, sizes, and the start of renewals.

use std::time::Duration;

use tokio::sync::Semaphore;

/// Point in the lifetime of a credential at which its renewal starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RenewalTiming {
    /// The renewal starts before the renewal point, with jitter. Tokens that were obtained together
    /// are then not renewed together.
    Jittered,
    /// The renewal starts at the renewal point.
    AtRenewalTime,
    /// The renewal starts shortly after the renewal point. This timing is for an issuer that
    /// returns the same credential until the renewal point, by the clock of the issuer.
    AfterRenewalTime,
}

// The builders of users' and accounts' tokens document these default durations. The renewal timeout
// is four fifths of the lease duration.
const DEFAULT_CACHE_TTL: Duration = Duration::from_secs(60);
const DEFAULT_LOAD_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_LEASE_DURATION: Duration = Duration::from_secs(10);
const DEFAULT_RENEWAL_TIMEOUT: Duration = Duration::from_secs(8);

/// Default maximum number of concurrent renewals of one engine: 512. The maximum bounds the open
/// connections to WeChat when many tokens are due at once.
const DEFAULT_MAX_CONCURRENT_RENEWALS: usize = 512;

/// Bounds of the lease duration: 100 milliseconds and one hour. A store cannot keep a lease of zero
/// length. A process that crashed must not prevent renewals by other processes for more than an
/// hour.
const MIN_LEASE_DURATION: Duration = Duration::from_millis(100);
const MAX_LEASE_DURATION: Duration = Duration::from_secs(3_600);

/// Configuration of an engine: its durations, the size of its cache, and the start of its renewals.
#[derive(Debug, Clone)]
pub(crate) struct ProviderConfig {
    /// Time between the renewal point and the expiry of a credential.
    pub(crate) margin: Duration,
    pub(crate) timing: RenewalTiming,
    /// Maximum time for which a cache entry is served without confirmation from the store, by a
    /// read or by a heartbeat of the invalidation channel.
    pub(crate) cache_ttl: Duration,
    /// Maximum number of credentials in the cache of the engine.
    pub(crate) cache_capacity: usize,
    /// Maximum time for which a caller waits for a credential, from the store or from a renewal.
    pub(crate) load_timeout: Duration,
    /// Duration of a lease. It is longer than `renewal_timeout`, so that a lease outlives its
    /// renewal.
    pub(crate) lease_duration: Duration,
    /// Maximum duration of a renewal with all its retries.
    pub(crate) renewal_timeout: Duration,
    /// Maximum number of renewals of the engine that run at the same time, at least two.
    pub(crate) max_concurrent_renewals: usize,
    /// `true` if the gauges with the AppID as a label are recorded. `false` for the accounts of a
    /// dynamic registry, whose number is not bounded.
    pub(crate) has_account_gauges: bool,
}

impl ProviderConfig {
    /// Returns the configuration for one kind of credential, with the default durations.
    pub(crate) fn new(margin: Duration, timing: RenewalTiming, cache_capacity: usize) -> Self {
        Self {
            margin,
            timing,
            cache_capacity,
            cache_ttl: DEFAULT_CACHE_TTL,
            load_timeout: DEFAULT_LOAD_TIMEOUT,
            lease_duration: DEFAULT_LEASE_DURATION,
            renewal_timeout: DEFAULT_RENEWAL_TIMEOUT,
            max_concurrent_renewals: DEFAULT_MAX_CONCURRENT_RENEWALS,
            has_account_gauges: true,
        }
    }

    /// Sets the maximum number of concurrent renewals, at least two.
    /// Default: 512.
    pub(crate) fn set_max_concurrent_renewals(&mut self, renewals: usize) {
        self.max_concurrent_renewals = renewals.clamp(2, Semaphore::MAX_PERMITS);
    }

    /// Returns the maximum number of concurrent renewals of unexpired tokens: half of all renewals.
    /// While WeChat does not answer, each renewal holds its permit until its timeout.
    /// The other half of the permits is then left for users whose token has expired.
    pub(crate) fn max_early_renewals(&self) -> usize {
        self.max_concurrent_renewals / 2
    }

    /// Sets the duration of a lease, limited to the range from 100 milliseconds to one hour. A
    /// renewal may take four fifths of the duration, so that the lease outlives the renewal's calls
    /// to WeChat (one renewal). Default: 10 seconds.
    pub(crate) fn set_lease_duration(&mut self, lease: Duration) {
        self.lease_duration = lease.clamp(MIN_LEASE_DURATION, MAX_LEASE_DURATION);
        self.renewal_timeout = self.lease_duration * 4 / 5;
    }
}
