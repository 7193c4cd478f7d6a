//! Bearer secrets that the center accepts, compared in constant time.

use std::sync::{PoisonError, RwLock};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::rejection_log::BearerRejection;
use crate::clock::Timestamp;
use crate::credential::BearerSecret;
use crate::error::Error;

/// Digests of the accepted secrets. All digests have the same length, so the duration of a
/// comparison does not depend on the length of a secret.
pub(crate) struct BearerSecrets(RwLock<Vec<AcceptedSecret>>);

#[derive(Clone, Copy)]
struct AcceptedSecret {
    digest: [u8; 32],
    /// The time from which on the secret is rejected. `None`: the secret does not expire.
    expires_at: Option<Timestamp>,
}

impl AcceptedSecret {
    fn is_valid(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|expiry| now < expiry)
    }
}

impl BearerSecrets {
    pub(crate) fn new(secrets: impl Iterator<Item = BearerSecret>) -> Result<Self, Error> {
        Ok(Self(RwLock::new(accepted_secrets(secrets)?)))
    }

    /// Replaces all accepted secrets, including those with an expiry. If a new secret is invalid,
    /// the accepted secrets stay unchanged, because validation comes before the lock. No request
    /// sees only a part of the new secrets.
    pub(super) fn replace(&self, secrets: impl Iterator<Item = BearerSecret>) -> Result<(), Error> {
        let accepted = accepted_secrets(secrets)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = accepted;
        Ok(())
    }

    /// Adds a secret that is accepted until `expires_at`.
    pub(super) fn accept_until(
        &self,
        secret: &BearerSecret,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), Error> {
        let added = AcceptedSecret {
            expires_at: Some(expires_at),
            ..accepted_secret(secret)?
        };
        let mut accepted = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Expired secrets are removed here, because a service may never call `replace`.
        accepted.retain(|secret| secret.is_valid(now));
        accepted.push(added);
        Ok(())
    }

    /// Returns `Ok` if the request carries an accepted secret.
    ///
    /// The comparison does not stop at the first match, and uses `|` and `&` instead of the
    /// short-circuit operators. The duration of the comparison therefore does not show which secret
    /// matched.
    pub(crate) fn authenticate(
        &self,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<(), BearerRejection> {
        let digest = digest(presented_secret(headers).ok_or(BearerRejection::Missing)?);
        let secrets = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (known, accepted) = secrets
            .iter()
            .fold((false, false), |(known, accepted), secret| {
                let matches = bool::from(secret.digest.ct_eq(&digest));
                (known | matches, accepted | (matches & secret.is_valid(now)))
            });
        match (known, accepted) {
            (_, true) => Ok(()),
            (true, false) => Err(BearerRejection::Expired),
            (false, false) => Err(BearerRejection::Wrong),
        }
    }
}

/// Validates the secrets, and returns their digests without an expiry. Returns an error if there
/// is none.
fn accepted_secrets(
    secrets: impl Iterator<Item = BearerSecret>,
) -> Result<Vec<AcceptedSecret>, Error> {
    let accepted: Vec<_> = secrets
        .map(|secret| accepted_secret(&secret))
        .collect::<Result<_, _>>()?;
    if accepted.is_empty() {
        let message = "the token center has no bearer secret: set at least one, long and random";
        return Err(Error::configuration(message));
    }
    Ok(accepted)
}

/// Validates a secret, and returns its digest without an expiry.
fn accepted_secret(secret: &BearerSecret) -> Result<AcceptedSecret, Error> {
    secret.check_header_value().map_err(Error::configuration)?;
    Ok(AcceptedSecret {
        digest: digest(secret.expose().as_bytes()),
        expires_at: None,
    })
}

fn digest(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// Returns the secret of the `Authorization: Bearer` header. Returns `None` for a request with
/// several `Authorization` headers, because a proxy in front of the center may have checked a
/// different one.
fn presented_secret(headers: &HeaderMap) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, secret) = value.as_bytes().split_at_checked(SCHEME.len())?;
    scheme
        .eq_ignore_ascii_case(SCHEME)
        .then(|| secret.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn bearers() -> BearerSecrets {
        BearerSecrets::new(
            ["first-secret", "second-secret"]
                .map(BearerSecret::from)
                .into_iter(),
        )
        .unwrap()
    }

    /// Returns `true` if a request with this `Authorization` header is accepted.
    fn accepts(bearers: &BearerSecrets, header: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(header).unwrap());
        bearers
            .authenticate(&headers, Timestamp::from_millis(1_000))
            .is_ok()
    }

    #[test]
    fn only_accepted_secrets_authenticate() {
        let bearers = bearers();
        for right in [
            "Bearer first-secret",
            "bearer second-secret",
            "BEARER  first-secret",
        ] {
            assert!(accepts(&bearers, right), "{right}");
        }
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "first-secret",
            "Basic first-secret",
            "Bearer first-secre",
            "Bearer first-secret2",
            "Bearer first-secret second-secret",
            "Bearerfirst-secret",
            "Bearer FIRST-SECRET",
        ] {
            assert!(!accepts(&bearers, wrong), "{wrong}");
        }
        let start = Timestamp::from_millis(0);
        assert_eq!(
            bearers.authenticate(&HeaderMap::new(), start),
            Err(BearerRejection::Missing)
        );
        let mut two = HeaderMap::new();
        two.append(
            AUTHORIZATION,
            HeaderValue::from_static("Bearer first-secret"),
        );
        two.append(
            AUTHORIZATION,
            HeaderValue::from_static("Bearer first-secret"),
        );
        assert_eq!(
            bearers.authenticate(&two, start),
            Err(BearerRejection::Missing)
        );
    }

    #[test]
    fn secrets_rotate_and_expire() {
        let bearers = bearers();
        let until = Timestamp::from_millis(2_000);
        let now = Timestamp::from_millis(0);
        bearers.accept_until(&"third".into(), until, now).unwrap();
        assert!(accepts(&bearers, "Bearer third"));
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer third"));
        assert_eq!(
            bearers.authenticate(&headers, until),
            Err(BearerRejection::Expired)
        );
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer none"));
        assert_eq!(
            bearers.authenticate(&headers, until),
            Err(BearerRejection::Wrong)
        );
        bearers
            .replace([BearerSecret::from("fourth")].into_iter())
            .unwrap();
        assert!(!accepts(&bearers, "Bearer first-secret"));
        assert!(accepts(&bearers, "Bearer fourth"));
        assert!(bearers.replace(std::iter::empty()).is_err());
        assert!(
            bearers
                .replace([BearerSecret::from("")].into_iter())
                .is_err()
        );
        assert!(
            bearers
                .replace([BearerSecret::from("a b")].into_iter())
                .is_err()
        );
        assert!(accepts(&bearers, "Bearer fourth"));
    }

    #[test]
    fn expired_secrets_are_removed() {
        let bearers = bearers();
        for second in 0..100 {
            let now = Timestamp::from_millis(second * 1_000);
            let until = now.saturating_add(std::time::Duration::from_secs(2));
            let secret = format!("secret-{second}");
            bearers.accept_until(&secret.into(), until, now).unwrap();
        }
        assert_eq!(bearers.0.read().unwrap().len(), 4);
    }
}
