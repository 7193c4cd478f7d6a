//! Log lines about requests that name no account of the layer.

use http::Method;

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
    if log_push(head, limiter) {
        return;
    }
    let is_callback = has_parameters(head, ["code", "state"]);
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
    let name = selector.select(head);
    let check = match name.is_some_and(|name| is_app_id(name.as_str())) {
        true => {
            "the account is neither listed nor in the registry: compare the letters of the AppID; the \
             owner of an account of a platform may not have authorized it, or the application declines it"
        }
        false => selector.advice(),
    };
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

/// Logs a push of WeChat for a third-party platform that reached the layer of the accounts, at most
/// once a minute. Returns `true` if the request is a push.
///
/// A layer around the route of pushes rejects the pushes, because they name no account. The platform
/// then receives no ticket.
pub(super) fn log_push(head: &RequestHead<'_>, limiter: &LogLimiter) -> bool {
    let is_push = *head.method == Method::POST && has_parameters(head, ["msg_signature", "nonce"]);
    if !is_push {
        return false;
    }
    if let Some(more) = limiter.allow_line("push at the layer of accounts") {
        let path: String = head
            .original_uri()
            .path()
            .chars()
            .take(MAX_TEXT_CHARS)
            .collect();
        tracing::warn!(
            target: "tower_wechat::layer",
            ?path,
            more,
            "a push for a third-party platform met the layer of several accounts and was rejected; \
             mount the route of Platform::push_layer outside of that layer"
        );
    }
    true
}

/// Returns `true` if a name has the form of an AppID.
fn is_app_id(name: &str) -> bool {
    name.len() == 18
        && name.starts_with("wx")
        && name.bytes().all(|letter| letter.is_ascii_alphanumeric())
}

/// Returns `true` if the query has these parameters. The log never contains their values.
fn has_parameters(head: &RequestHead<'_>, names: [&str; 2]) -> bool {
    let query = head.original_uri().query().unwrap_or_default();
    names.into_iter().all(|name| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.any(|(key, value)| key == name && !value.is_empty())
    })
}
