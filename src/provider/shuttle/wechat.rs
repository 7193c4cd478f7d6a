//! A fake WeChat for tests under the checker. It revokes a refresh token when it grants the next
//! pair.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::credential::{AccessToken, Lifetime, Record, Refresh, Token, UserDetails};
use crate::error::{Error, ErrorKind};
use crate::provider::source::{CredentialSource, RenewalFailure};
use crate::store::BoxFuture;

pub(super) const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// Freshness of an access token when a schedule begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenAge {
    Fresh,
    Stale,
    Expired,
}

/// Creates the pair with this number: `access-NUMBER` and `refresh-NUMBER`. Each pair of an age
/// expires a millisecond after the preceding one, because WeChat granted it later.
pub(super) fn record(number: usize, age: TokenAge) -> Record {
    let granted = match age {
        TokenAge::Fresh => NOW,
        TokenAge::Stale => NOW.saturating_sub(Duration::from_secs(6_400)),
        TokenAge::Expired => NOW.saturating_sub(Duration::from_secs(7_300)),
    };
    let granted = granted.saturating_add(Duration::from_millis(number as u64));
    let lifetime = Lifetime::from_response(granted, Some(7_200), Duration::from_secs(900));
    Record {
        token: Some(Token {
            secret: AccessToken::from(format!("access-{number}")),
            lifetime,
        }),
        refresh: Some(Refresh {
            secret: format!("refresh-{number}").as_str().into(),
            expected_expiry: NOW.saturating_add(Duration::from_secs(30 * 24 * 3_600)),
        }),
        details: UserDetails::default(),
    }
}

/// A fake WeChat that numbers the pairs that it grants. Each grant revokes the refresh token of the
/// preceding pair.
#[derive(Default)]
pub(super) struct FakeWechat {
    /// Numbers of all pairs that WeChat granted, in their order.
    granted: Mutex<Vec<usize>>,
    /// `true` while a process calls WeChat for a renewal.
    renewing: AtomicBool,
    /// Number of additional steps between a renewal and its answer.
    pub(super) delay: AtomicUsize,
    /// `true` if two renewals may run at once, because the test aborts calls or loses leases.
    allows_failures: bool,
    /// If set, every renewal fails with the failure that this function creates.
    failure: Mutex<Option<fn() -> RenewalFailure>>,
}

impl FakeWechat {
    pub(super) fn new(allows_failures: bool) -> Self {
        Self {
            allows_failures,
            ..Self::default()
        }
    }

    /// Returns the number of the last pair that WeChat granted. The first pair has the number zero.
    pub(super) fn last_grant(&self) -> usize {
        self.granted.lock().unwrap().len() - 1
    }

    /// Returns `true` if a process calls WeChat for a renewal, or if a renewal was granted.
    pub(super) fn has_begun_renewal(&self) -> bool {
        self.renewing.load(Ordering::Relaxed) || self.last_grant() > 0
    }

    pub(super) fn fail_renewals_with(&self, failure: fn() -> RenewalFailure) {
        *self.failure.lock().unwrap() = Some(failure);
    }

    pub(super) fn grant(&self) -> usize {
        let mut granted = self.granted.lock().unwrap();
        let number = granted.len();
        granted.push(number);
        number
    }
}

/// Credential source of one process, which renews at the shared fake WeChat.
pub(super) struct FakeSource(pub(super) Arc<FakeWechat>);

impl CredentialSource for FakeSource {
    fn can_renew(&self, record: &Record) -> bool {
        record.refresh.is_some()
    }

    fn renew<'a>(
        &'a self,
        record: &'a Record,
        _invalid_token: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Record, RenewalFailure>> {
        Box::pin(async move {
            let wechat = &self.0;
            let is_concurrent = wechat.renewing.swap(true, Ordering::Relaxed);
            assert!(
                !is_concurrent || wechat.allows_failures,
                "one renewal: two renewals run at once"
            );
            for _ in 0..=wechat.delay.load(Ordering::Relaxed) {
                shuttle::future::yield_now().await;
            }
            let refresh = record.refresh.as_ref();
            let refresh = refresh.map(|refresh| refresh.secret.expose().to_owned());
            let current = wechat.last_grant();
            let failure = *wechat.failure.lock().unwrap();
            let outcome = if let Some(failure) = failure {
                Err(failure())
            } else if refresh == Some(format!("refresh-{current}")) {
                Ok(self::record(wechat.grant(), TokenAge::Fresh))
            } else {
                let error = Error::new(ErrorKind::LoginRequired, "the refresh token is revoked");
                Err(RenewalFailure::InvalidGrant(error))
            };
            shuttle::future::yield_now().await;
            wechat.renewing.store(false, Ordering::Relaxed);
            outcome
        })
    }
}
