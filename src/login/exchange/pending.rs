//! The text of WeChat's response to a suspended exchange, as the store keeps it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::outcome::RESULT_LIFETIME;
use crate::clock::Timestamp;
use crate::store::PendingResponse;
use crate::wechat::UserTokenResponse;

/// Capacity of a new text: 2 KiB. The text of a usual response is shorter, so that the text does
/// not grow and leave a copy of the tokens in freed memory.
const TEXT_CAPACITY: usize = 2_048;

/// Minimum time for which a response is stored: one second, because Redis rejects a TTL of zero.
const MIN_LIFETIME: Duration = Duration::from_secs(1);

/// The JSON of a response, to write. The names of the fields are part of the format.
#[derive(Serialize)]
struct WrittenResponse<'a> {
    /// The id of the login whose callback sent the code.
    login: u64,
    /// The time at which WeChat's response arrived, in milliseconds since the Unix epoch.
    received_at: i64,
    access_token: &'a str,
    expires_in: Option<i64>,
    refresh_token: Option<&'a str>,
    openid: Option<&'a str>,
    scope: Option<&'a str>,
    unionid: Option<&'a str>,
}

/// The JSON of a response, to read.
#[derive(Deserialize)]
struct ReadResponse {
    login: u64,
    received_at: i64,
    access_token: String,
    expires_in: Option<i64>,
    refresh_token: Option<String>,
    openid: Option<String>,
    scope: Option<String>,
    unionid: Option<String>,
}

/// The response to a suspended exchange, as a process reads it.
#[derive(Debug, PartialEq)]
pub(super) struct ResumedResponse {
    /// The id of the login whose callback sent the code. Logs and browser histories contain codes;
    /// a callback of another login must not resume the exchange.
    pub(super) login_id: u64,
    pub(super) received_at: Timestamp,
    pub(super) response: UserTokenResponse,
}

/// Returns the text of a response to this login that arrived at `received_at`. The user is not
/// virtual, because the hook does not receive virtual users.
pub(super) fn pending_response(
    login_id: u64,
    response: &UserTokenResponse,
    received_at: Timestamp,
) -> PendingResponse {
    let written = WrittenResponse {
        login: login_id,
        received_at: received_at.as_millis(),
        access_token: response.access_token.expose(),
        expires_in: response.expires_in,
        refresh_token: response.refresh_token.as_ref().map(|token| token.expose()),
        openid: response.openid.as_deref(),
        scope: response.scope.as_deref(),
        unionid: response.unionid.as_deref(),
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(TEXT_CAPACITY));
    // Neither the serialization of these fields nor a write to memory can fail.
    let _ = serde_json::to_writer(&mut *bytes, &written);
    let text = String::from_utf8(std::mem::take(&mut *bytes)).unwrap_or_default();
    PendingResponse::new(Zeroizing::new(text))
}

/// Reads a response. Returns `None` for a text that this version cannot read.
pub(super) fn read_pending(pending: &PendingResponse) -> Option<ResumedResponse> {
    let read: ReadResponse = serde_json::from_str(pending.expose()).ok()?;
    let mut response = UserTokenResponse::new(read.access_token);
    response.expires_in = read.expires_in;
    response.refresh_token = read.refresh_token.map(Into::into);
    response.openid = read.openid;
    response.scope = read.scope;
    response.unionid = read.unionid;
    Some(ResumedResponse {
        login_id: read.login,
        received_at: Timestamp::from_millis(read.received_at),
        response,
    })
}

/// Returns the time for which a response that arrived at `received_at` is stored from `now` on.
pub(super) fn remaining_lifetime(received_at: Timestamp, now: Timestamp) -> Duration {
    let elapsed = received_at.duration_until(now);
    RESULT_LIFETIME.saturating_sub(elapsed).max(MIN_LIFETIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARRIVAL: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    #[test]
    fn a_response_is_read_as_it_was_written() {
        let response = UserTokenResponse::new("a \"1\"")
            .expires_in(7_200)
            .refresh_token("r")
            .openid("oA")
            .scope("snsapi_base")
            .unionid("uA");
        let read = read_pending(&pending_response(7, &response, ARRIVAL));
        let expected = ResumedResponse {
            login_id: 7,
            received_at: ARRIVAL,
            response,
        };
        assert_eq!(read, Some(expected));
    }

    /// Processes of different versions exchange this text, so that no version may change it.
    #[test]
    fn stored_json_is_stable() {
        let pending = pending_response(7, &UserTokenResponse::new("a").openid("oA"), ARRIVAL);
        assert_eq!(
            pending.expose(),
            r#"{"login":7,"received_at":1700000000000,"access_token":"a","expires_in":null,"refresh_token":null,"openid":"oA","scope":null,"unionid":null}"#
        );
        for text in ["", "{}", r#"{"later":1}"#] {
            let pending = PendingResponse::new(Zeroizing::new(text.to_owned()));
            assert_eq!(read_pending(&pending), None, "{text}");
        }
    }

    #[test]
    fn a_response_is_kept_for_ten_minutes_in_all() {
        for (seconds, expected) in [(0, 600), (599, 1), (700, 1)] {
            let now = ARRIVAL.saturating_add(Duration::from_secs(seconds));
            let expected = Duration::from_secs(expected);
            assert_eq!(remaining_lifetime(ARRIVAL, now), expected);
        }
    }
}
