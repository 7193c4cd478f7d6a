//! Counters, gauges and histograms for operators, through the `metrics` facade.
//!
//! Without the feature `metrics`, these functions record no metrics. `guide/observability.md`
//! describes each metric and its remedy; tests compare the two.

mod account_gauges;

use std::time::Duration;

use tracing::Span;

pub(crate) use self::account_gauges::AccountGauges;
#[cfg(feature = "platform")]
use crate::clock::Timestamp;
#[cfg(feature = "platform")]
use crate::credential::AppId;

/// Maximum number of API paths that have a separate label: 64. Applications may call any path, and
/// the number of labels must stay small. The calls of this crate have seven paths.
#[cfg(feature = "metrics")]
const MAX_PATH_LABELS: usize = 64;

/// Outcome of a request in the layer: the origin of its token, or the reason why it has none.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RequestOutcome {
    /// A fresh token of the user was in the cache.
    Cache,
    /// A fresh token was read from the store.
    Store,
    /// The request waited until WeChat granted a new token.
    Renewed,
    /// The token was due for renewal, and the request was served with it.
    Stale,
    /// The request had no user, its user had no usable token or lacked a required scope, or its
    /// path was one of the login's own.
    Login,
    /// The request had no user for a reason that a login does not remove, such as a failure of the
    /// store.
    Rejected,
}

/// Counters of requests, one for each [`RequestOutcome`]. They are created once, so that counting a
/// request costs one addition.
#[derive(Clone)]
pub(crate) struct RequestCounters {
    #[cfg(feature = "metrics")]
    counters: [metrics::Counter; 6],
}

impl RequestCounters {
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(feature = "metrics")]
            counters: ["cache", "store", "renewed", "stale", "login", "rejected"]
                .map(|outcome| metrics::counter!("wechat_requests_total", "outcome" => outcome)),
        }
    }

    #[inline]
    #[cfg_attr(not(feature = "metrics"), allow(unused_variables, clippy::unused_self))]
    pub(crate) fn count(&self, outcome: RequestOutcome) {
        #[cfg(feature = "metrics")]
        self.counters[outcome as usize].increment(1);
    }
}

impl std::fmt::Debug for RequestCounters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Requests")
    }
}

/// Describes all metrics to the recorder. Runs whenever an engine is created, because the
/// application may have installed a recorder since the previous engine was created.
pub(crate) fn describe_metrics() {
    #[cfg(feature = "metrics")]
    {
        use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
        describe_counter!(
            "wechat_requests_total",
            Unit::Count,
            "Requests that the layer has seen, by where their user's token came from"
        );
        describe_counter!(
            "wechat_renewals_total",
            Unit::Count,
            "Renewals of credentials that this process has finished, by result"
        );
        describe_counter!(
            "wechat_logins_begun_total",
            Unit::Count,
            "Browsers that were sent to WeChat's authorize page"
        );
        describe_counter!(
            "wechat_logins_total",
            Unit::Count,
            "Logins that came to an end in this process, by result"
        );
        describe_counter!(
            "wechat_center_refused_total",
            Unit::Count,
            "Requests that the token center refused for their bearer, by reason"
        );
        describe_counter!(
            "wechat_platform_pushes_total",
            Unit::Count,
            "Requests at the route of a platform's pushes, by event and result"
        );
        describe_gauge!(
            "wechat_platform_ticket_received_timestamp_seconds",
            Unit::Seconds,
            "When WeChat created the newest verify ticket that this process knows, in seconds since \
             the Unix epoch; 0 until it knows one"
        );
        describe_histogram!(
            "wechat_store_seconds",
            Unit::Seconds,
            "How long exchanges with Redis took"
        );
        describe_gauge!(
            "wechat_store_up",
            Unit::Count,
            "1 while Redis answers, 0 while it is away"
        );
        describe_histogram!(
            "wechat_api_seconds",
            Unit::Seconds,
            "How long calls of WeChat's API took"
        );
        describe_gauge!(
            "wechat_cached_credentials",
            Unit::Count,
            "Credentials that this process holds in memory"
        );
        describe_gauge!(
            "wechat_credential_expires_timestamp_seconds",
            Unit::Seconds,
            "When the account's own credential dies, in seconds since the Unix epoch"
        );
        describe_gauge!(
            "wechat_resting_until_timestamp_seconds",
            Unit::Seconds,
            "Until when WeChat is not asked for credentials of this account, because it refuses \
             it; 0 where it does not"
        );
    }
}

/// Records the result of a renewal in the counter and in the current span.
#[cfg_attr(not(feature = "metrics"), allow(unused_variables))]
pub(crate) fn record_renewal(kind: &'static str, result: &'static str) {
    Span::current().record("result", result);
    #[cfg(feature = "metrics")]
    metrics::counter!("wechat_renewals_total", "kind" => kind, "result" => result).increment(1);
}

pub(crate) fn count_login_start() {
    #[cfg(feature = "metrics")]
    metrics::counter!("wechat_logins_begun_total").increment(1);
}

#[cfg_attr(not(feature = "metrics"), allow(unused_variables))]
pub(crate) fn count_login(result: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("wechat_logins_total", "result" => result).increment(1);
}

/// Counts a request whose bearer secret the token center rejected.
#[cfg_attr(not(feature = "metrics"), allow(unused_variables))]
pub(crate) fn count_center_rejection(reason: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("wechat_center_refused_total", "reason" => reason).increment(1);
}

/// Counts a request at the route of a platform's pushes.
#[cfg(feature = "platform")]
#[cfg_attr(not(feature = "metrics"), allow(unused_variables))]
pub(crate) fn count_push(event: &'static str, result: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("wechat_platform_pushes_total", "event" => event, "result" => result)
        .increment(1);
}

/// Sets the gauge of the newest verify ticket of a platform. A process has few platforms, so the
/// AppID is a label.
#[cfg(feature = "platform")]
#[cfg_attr(not(feature = "metrics"), allow(unused_variables))]
pub(crate) fn set_ticket_received(component: &AppId, created: Timestamp) {
    #[cfg(feature = "metrics")]
    metrics::gauge!(
        "wechat_platform_ticket_received_timestamp_seconds",
        "app" => component.as_str().to_owned()
    )
    .set(created.as_millis() as f64 / 1_000.0);
}

#[cfg(feature = "redis")]
#[cfg_attr(not(feature = "metrics"), allow(unused_variables))]
pub(crate) fn record_store_call(duration: Duration, ok: bool) {
    #[cfg(feature = "metrics")]
    {
        let result = if ok { "ok" } else { "failed" };
        metrics::histogram!("wechat_store_seconds", "result" => result)
            .record(duration.as_secs_f64());
    }
}

/// Records whether the Redis server at `address` answers. The caller has removed the password from
/// the address, because the address becomes a label.
#[cfg(feature = "redis")]
#[cfg_attr(not(feature = "metrics"), allow(unused_variables))]
pub(crate) fn set_store_up(address: &str, up: bool) {
    #[cfg(feature = "metrics")]
    metrics::gauge!("wechat_store_up", "address" => address.to_owned())
        .set(f64::from(u8::from(up)));
}

#[cfg_attr(not(feature = "metrics"), allow(unused_variables))]
pub(crate) fn record_api_call(path: &str, result: &'static str, duration: Duration) {
    #[cfg(feature = "metrics")]
    metrics::histogram!("wechat_api_seconds", "path" => path_label(path), "result" => result)
        .record(duration.as_secs_f64());
}

/// Returns the label of a path: the path itself, or `other` for a new path after
/// [`MAX_PATH_LABELS`] paths.
#[cfg(feature = "metrics")]
fn path_label(path: &str) -> String {
    use std::collections::BTreeSet;
    use std::sync::{Mutex, PoisonError};

    static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if !seen.contains(path) {
        if seen.len() >= MAX_PATH_LABELS {
            return "other".to_owned();
        }
        seen.insert(path.to_owned());
    }
    path.to_owned()
}

/// Gauge of the cache entries of one engine. The recorded value is the sum over all engines of a
/// kind in this process, because an application may serve several accounts.
pub(crate) struct CachedGauge {
    #[cfg(feature = "metrics")]
    kind: &'static str,
    #[cfg(feature = "metrics")]
    counted: std::sync::atomic::AtomicUsize,
}

impl CachedGauge {
    #[cfg_attr(not(feature = "metrics"), allow(unused_variables))]
    pub(crate) fn new(kind: &'static str) -> Self {
        let cached = Self {
            #[cfg(feature = "metrics")]
            kind,
            #[cfg(feature = "metrics")]
            counted: 0.into(),
        };
        // Set the gauge to a defined value: dashboards show a missing series as an error.
        cached.set(0);
        cached
    }

    #[cfg_attr(not(feature = "metrics"), allow(unused_variables, clippy::unused_self))]
    pub(crate) fn set(&self, count: usize) {
        #[cfg(feature = "metrics")]
        {
            use std::collections::BTreeMap;
            use std::sync::atomic::Ordering;
            use std::sync::{Mutex, PoisonError};

            static TOTALS: Mutex<BTreeMap<&str, usize>> = Mutex::new(BTreeMap::new());
            let mut totals = TOTALS.lock().unwrap_or_else(PoisonError::into_inner);
            let total = totals.entry(self.kind).or_default();
            // `Relaxed`, because the lock orders all accesses to this number.
            let before = self.counted.swap(count, Ordering::Relaxed);
            *total = total.saturating_sub(before).saturating_add(count);
            // The lock is held here, because an older sum could otherwise replace a newer one.
            metrics::gauge!("wechat_cached_credentials", "kind" => self.kind).set(*total as f64);
        }
    }
}

impl Drop for CachedGauge {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_path_labels_is_bounded() {
        let labels: std::collections::BTreeSet<_> = (0..1_000)
            .map(|number| path_label(&format!("cgi-bin/card/{number}")))
            .collect();
        assert!(labels.len() <= MAX_PATH_LABELS + 1, "{}", labels.len());
        assert!(labels.contains("other"));
    }
}
