//! Outcomes of an exchange, and their text in the store.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::Span;

use crate::credential::UserId;
use crate::error::Error;
use crate::login::failure::LoginFailure;
use crate::metrics;

/// Time for which the store keeps an outcome and the binding of its code: ten minutes. All copies
/// of a callback that arrive within this time get the same outcome.
pub(super) const RESULT_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// Time for which the store keeps a failure that is likely to end within seconds: two seconds,
/// within which copies of a callback arrive. `Retry-After` has the same value, so that a later
/// retry does not find the old failure.
pub(in crate::login) const TRANSIENT_FAILURE_LIFETIME: Duration = Duration::from_secs(2);

/// Outcome of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExchangeOutcome {
    /// The code has signed this user in.
    SignedIn(SignedInUser),
    /// WeChat rejects the code as spent, expired or invalid. The login is retried, unless the
    /// browser has a session.
    CodeSpent,
    /// The login has failed, and the user gets a failure page.
    Failed(LoginFailure),
}

/// The user that a code has signed in. Contains no token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignedInUser {
    pub(in crate::login) user: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::login) snapshot: bool,
    /// The scope that WeChat has granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::login) scope: Option<String>,
    /// The id of the login whose callback sent the code. Logs and browser histories contain used
    /// codes; a callback of another login must not sign in with one.
    #[serde(default)]
    pub(in crate::login) login: u64,
    /// The time of the user's last logout everywhere before this login, in milliseconds since the
    /// Unix epoch. `None` without such a logout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::login) epoch: Option<i64>,
    /// `true` if this code has replaced tokens with the scope `snsapi_userinfo`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::login) had_more: bool,
}

/// The JSON of an outcome in the store. The names of variants and fields are part of the format.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredOutcome {
    SignedIn(SignedInUser),
    Spent,
    Trouble(String),
}

impl ExchangeOutcome {
    /// Returns the outcome as JSON for the store.
    pub(super) fn to_json(&self) -> String {
        let stored = match self {
            Self::SignedIn(signed_in) => StoredOutcome::SignedIn(signed_in.clone()),
            Self::CodeSpent => StoredOutcome::Spent,
            Self::Failed(failure) => StoredOutcome::Trouble(failure.as_str().to_owned()),
        };
        serde_json::to_string(&stored).unwrap_or_default()
    }

    /// Parses the JSON of an outcome in the store. A later version of this crate may have written
    /// JSON that this version cannot read. Such JSON counts as a spent code, so that the login is
    /// retried. An unknown failure counts as [`LoginFailure::CodeRejected`].
    pub(crate) fn from_json(text: &str) -> Self {
        match serde_json::from_str(text) {
            Ok(StoredOutcome::SignedIn(signed_in)) if UserId::check(&signed_in.user).is_ok() => {
                Self::SignedIn(signed_in)
            }
            Ok(StoredOutcome::Trouble(name)) => {
                Self::Failed(LoginFailure::from_name(&name).unwrap_or(LoginFailure::CodeRejected))
            }
            Ok(StoredOutcome::SignedIn(_) | StoredOutcome::Spent) | Err(_) => Self::CodeSpent,
        }
    }

    /// Returns the outcome of an exchange that failed with this error.
    pub(super) fn from_error(error: &Error) -> Self {
        LoginFailure::from_exchange_error(error).map_or(Self::CodeSpent, Self::Failed)
    }

    /// Returns the outcome's name in metrics and spans.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::SignedIn(signed_in) if signed_in.snapshot => "snapshot",
            Self::SignedIn(_) => "signed_in",
            Self::CodeSpent => "spent",
            Self::Failed(failure) => failure.as_str(),
        }
    }

    /// Counts the outcome in the metrics, and records it in the current span.
    pub(super) fn record(&self) {
        metrics::count_login(self.as_str());
        Span::current().record("result", self.as_str());
    }

    /// Returns `true` for a failure that is likely to end within seconds.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Failed(failure) if failure.is_transient())
    }

    /// Returns how long the store keeps the outcome.
    pub(super) fn lifetime(&self) -> Duration {
        match self.is_transient() {
            true => TRANSIENT_FAILURE_LIFETIME,
            false => RESULT_LIFETIME,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed_in() -> SignedInUser {
        SignedInUser {
            user: "oUser \"#1\"".into(),
            snapshot: true,
            scope: Some("snsapi_base".into()),
            login: 7,
            epoch: Some(1_700_000_000_000),
            had_more: true,
        }
    }

    #[test]
    fn outcomes_round_trip() {
        let mut outcomes = vec![
            ExchangeOutcome::SignedIn(signed_in()),
            ExchangeOutcome::CodeSpent,
        ];
        outcomes.extend(LoginFailure::ALL.map(ExchangeOutcome::Failed));
        for outcome in outcomes {
            assert_eq!(ExchangeOutcome::from_json(&outcome.to_json()), outcome);
        }
    }

    /// Processes of different versions exchange these texts, so that no version may change them.
    #[test]
    fn stored_json_is_stable() {
        let plain = SignedInUser {
            user: "oUser".into(),
            snapshot: false,
            scope: None,
            login: 0,
            epoch: None,
            had_more: false,
        };
        for (outcome, json) in [
            (
                ExchangeOutcome::SignedIn(signed_in()),
                r##"{"signed_in":{"user":"oUser \"#1\"","snapshot":true,"scope":"snsapi_base","login":7,"epoch":1700000000000,"had_more":true}}"##,
            ),
            (
                ExchangeOutcome::SignedIn(plain),
                r#"{"signed_in":{"user":"oUser","login":0}}"#,
            ),
            (ExchangeOutcome::CodeSpent, r#""spent""#),
            (
                ExchangeOutcome::Failed(LoginFailure::WechatUnavailable),
                r#"{"trouble":"wechat_away"}"#,
            ),
        ] {
            assert_eq!(outcome.to_json(), json);
            assert_eq!(ExchangeOutcome::from_json(json), outcome);
        }
    }

    #[test]
    fn unknown_texts_are_read_as_spent_codes() {
        for text in ["", "{\"later\":1}", "{\"signed_in\":{\"user\":\"\"}}"] {
            assert_eq!(
                ExchangeOutcome::from_json(text),
                ExchangeOutcome::CodeSpent,
                "{text}"
            );
        }
        assert_eq!(
            ExchangeOutcome::from_json(r#"{"trouble":"later"}"#),
            ExchangeOutcome::Failed(LoginFailure::CodeRejected)
        );
    }

    #[test]
    fn names_of_failures_are_stable() {
        let names = LoginFailure::ALL.map(LoginFailure::as_str);
        assert_eq!(
            names.join(" "),
            "bad_request misplaced expired unknown denied snapshot_refused barred \
             profile_not_granted outside_wechat no_qr_code too_often not_kept not_accepted \
             misconfigured invalid_user_id hook_failed wechat_away store_away"
        );
    }
}
