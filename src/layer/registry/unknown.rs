//! Log lines about requests that name no account of the layer.

use super::selector::AccountSelector;
use crate::identity::RequestHead;
use crate::log_limiter::LogLimiter;

/// Maximum length of a text from a request in a log line.
const MAX_TEXT_CHARS: usize = 64;

/// Logs a request that names no account, at most once a minute for callbacks and for all others.
///
/// A wrong proxy turns every request into such a request. Any client can send one too, so only a
/// callback with a code and a state is a warning.
pub(super) fn log(head: &RequestHead<'_>, selector: &AccountSelector, limiter: &LogLimiter) {
    let is_callback = has_code_and_state(head.original_uri().query().unwrap_or_default());
    let kind = match is_callback {
        true => "callback of no account",
        false => "unknown account",
    };
    let Some(more) = limiter.allow_line(kind) else {
        return;
    };
    let examined = selector.examined_text(head);
    let examined = examined.as_deref().unwrap_or_default();
    // `Debug` escapes control characters, and the cut bounds the line.
    let examined: String = examined.chars().take(MAX_TEXT_CHARS).collect();
    let check = selector.advice();
    match is_callback {
        true => tracing::warn!(
            target: "tower_wechat::layer",
            ?selector,
            ?examined,
            check,
            more,
            "WeChat sent a user to an address that selects no account, and the login failed with 404"
        ),
        false => tracing::info!(
            target: "tower_wechat::layer",
            ?selector,
            ?examined,
            check,
            more,
            "a request named no known account and received 404 unknown_account"
        ),
    }
}

/// Returns `true` if the query has the parameters of a callback. The log never contains their values.
fn has_code_and_state(query: &str) -> bool {
    let has = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.any(|(key, value)| key == name && !value.is_empty())
    };
    has("code") && has("state")
}
