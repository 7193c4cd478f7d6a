//! Counters and histograms for operators, through the `metrics` facade.
//!
//! Without the feature `metrics` everything here is empty and costs nothing.
//!
//! | name | kind | labels |
//! |---|---|---|
//! | `wechat_requests_total` | counter | `outcome`: `cache`, `store`, `stale`, `login`, `rejected` |
//! | `wechat_renewals_total` | counter | `kind`, `result`: `renewed`, `dead`, `transient`, `operator` |
//! | `wechat_store_seconds` | histogram | `result`: `ok`, `failed` |
//! | `wechat_api_seconds` | histogram | `path`, `result`: `ok`, `errcode`, `failed` |
//! | `wechat_cached_credentials` | gauge | `kind` |

use std::time::Duration;

/// How a request was answered, as far as the layer is concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    /// The token was in memory.
    Cache,
    /// The store had to be asked, and WeChat where the token had expired.
    Store,
    /// As `Store`, and the token is past its renewal point.
    Stale,
    /// Nobody, or without a usable token.
    Login,
    /// Refused for another reason.
    Rejected,
}

/// Counters that every request touches: looked up once, so that a request costs one addition.
#[derive(Clone)]
pub(crate) struct Requests {
    #[cfg(feature = "metrics")]
    counters: [metrics::Counter; 5],
}

impl Requests {
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(feature = "metrics")]
            counters: ["cache", "store", "stale", "login", "rejected"]
                .map(|outcome| metrics::counter!("wechat_requests_total", "outcome" => outcome)),
        }
    }

    #[inline]
    #[cfg_attr(not(feature = "metrics"), allow(unused_variables, clippy::unused_self))]
    pub(crate) fn count(&self, outcome: Outcome) {
        #[cfg(feature = "metrics")]
        self.counters[outcome as usize].increment(1);
    }
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Requests")
    }
}

#[cfg_attr(not(feature = "metrics"), allow(unused_variables))]
pub(crate) fn renewal(kind: &'static str, result: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("wechat_renewals_total", "kind" => kind, "result" => result).increment(1);
}

#[cfg(feature = "redis")]
#[cfg_attr(not(feature = "metrics"), allow(unused_variables))]
pub(crate) fn store_call(took: Duration, ok: bool) {
    #[cfg(feature = "metrics")]
    {
        let result = if ok { "ok" } else { "failed" };
        metrics::histogram!("wechat_store_seconds", "result" => result).record(took.as_secs_f64());
    }
}

#[cfg_attr(not(feature = "metrics"), allow(unused_variables))]
pub(crate) fn api_call(path: &str, result: &'static str, took: Duration) {
    #[cfg(feature = "metrics")]
    metrics::histogram!("wechat_api_seconds", "path" => path.to_owned(), "result" => result)
        .record(took.as_secs_f64());
}

#[cfg_attr(not(feature = "metrics"), allow(unused_variables))]
pub(crate) fn cached(kind: &'static str, count: usize) {
    #[cfg(feature = "metrics")]
    metrics::gauge!("wechat_cached_credentials", "kind" => kind).set(count as f64);
}
