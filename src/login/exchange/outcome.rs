//! Outcomes of an exchange, and their text in the store.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::credential::UserId;
use crate::error::Error;
use crate::login::failure::LoginFailure;

/// How long every copy of a callback gets the same result.
pub(super) const RESULT_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// How long a failure is told that may be gone in a moment: as long as copies come together.
/// `Retry-After` is made of it: a client that waits as long as it was told finds it forgotten.
pub(in crate::login) const TRANSIENT_FAILURE_LIFETIME: Duration = Duration::from_secs(2);

/// What came of a code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExchangeOutcome {
    /// It signed this user in.
    SignedIn(SignedInUser),
    /// WeChat does not take it: the login has to begin anew.
    CodeSpent,
    /// The user is told.
    Failed(LoginFailure),
}

/// Who was signed in. Never a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignedInUser {
    pub(in crate::login) user: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::login) snapshot: bool,
    /// What WeChat says was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::login) scope: Option<String>,
    /// The number of the login whose callback brought the code. A used code is in logs and
    /// histories; under another login's state it is nobody's.
    #[serde(default)]
    pub(in crate::login) login: u64,
    /// When the user had last logged out everywhere by then, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::login) epoch: Option<i64>,
    /// The user had granted `snsapi_userinfo` before, which this code's pair has replaced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::login) had_more: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredOutcome {
    SignedIn(SignedInUser),
    Spent,
    Trouble(String),
}

impl ExchangeOutcome {
    pub(super) fn to_json(&self) -> String {
        let written = match self {
            Self::SignedIn(signed_in) => StoredOutcome::SignedIn(signed_in.clone()),
            Self::CodeSpent => StoredOutcome::Spent,
            Self::Failed(trouble) => StoredOutcome::Trouble(trouble.as_str().to_owned()),
        };
        serde_json::to_string(&written).unwrap_or_default()
    }

    /// What cannot be read was written by a later version of this crate.
    pub(crate) fn from_json(text: &str) -> Self {
        match serde_json::from_str(text) {
            Ok(StoredOutcome::SignedIn(signed_in)) if UserId::check(&signed_in.user).is_ok() => {
                Self::SignedIn(signed_in)
            }
            Ok(StoredOutcome::Trouble(name)) => {
                Self::Failed(LoginFailure::from_name(&name).unwrap_or(LoginFailure::CodeRejected))
            }
            _ => Self::CodeSpent,
        }
    }

    pub(super) fn from_error(error: &Error) -> Self {
        LoginFailure::from_exchange_error(error).map_or(Self::CodeSpent, Self::Failed)
    }

    /// Its name in metrics and spans.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::SignedIn(signed_in) if signed_in.snapshot => "snapshot",
            Self::SignedIn(_) => "signed_in",
            Self::CodeSpent => "spent",
            Self::Failed(trouble) => trouble.as_str(),
        }
    }

    pub(super) fn lifetime(&self) -> Duration {
        match self {
            Self::Failed(trouble) if trouble.is_transient() => TRANSIENT_FAILURE_LIFETIME,
            _ => RESULT_LIFETIME,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_round_trip_without_tokens() {
        let signed_in = SignedInUser {
            user: "oUser \"#1\"".into(),
            snapshot: true,
            scope: Some("snsapi_base".into()),
            login: 7,
            epoch: Some(1_700_000_000_000),
            had_more: true,
        };
        let mut verdicts = vec![
            ExchangeOutcome::SignedIn(signed_in),
            ExchangeOutcome::CodeSpent,
        ];
        verdicts.extend(LoginFailure::ALL.map(ExchangeOutcome::Failed));
        for verdict in verdicts {
            assert_eq!(ExchangeOutcome::from_json(&verdict.to_json()), verdict);
        }
        assert_eq!(
            ExchangeOutcome::from_json("{\"later\":1}"),
            ExchangeOutcome::CodeSpent
        );
        assert_eq!(
            ExchangeOutcome::from_json("{\"signed_in\":{\"user\":\"\"}}"),
            ExchangeOutcome::CodeSpent
        );
    }
}
