//! Authorization codes, and the outcomes of their exchanges, which all processes share.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::bytes::encode_hex;
use crate::clock::Timestamp;
use crate::credential::AppId;
use crate::error::{Error, ErrorKind};

/// Errcodes of an authorization code that WeChat refuses: invalid, and used or expired.
pub(super) const CODE_REFUSED: [i64; 2] = [61009, 61010];

/// An authorization code, with what is known about it.
#[derive(Clone)]
pub(super) struct AuthorizationCode {
    pub(super) code: Zeroizing<String>,
    /// The hash of the code of the page on which the owner has authorized the platform.
    pub(super) pre_auth_hash: Option<String>,
    /// The account that the event names.
    pub(super) account: Option<AppId>,
    /// The time of the event.
    pub(super) created: Option<Timestamp>,
}

/// Returns the hash of a pre_auth_code, by which the return of a browser and an event are joined.
pub(crate) fn pre_auth_code_hash(code: &str) -> String {
    encode_hex(&Sha256::digest(code.as_bytes())[..16])
}

/// The outcome of an exchange, as the store keeps it for copies of the code, and for the other code of the
/// same page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExchangeOutcome {
    /// `None`: WeChat has refused the code.
    account: Option<AppId>,
    /// The hash of the code of the event.
    event: Option<String>,
    /// The hash of the code with which the browser has returned.
    returned: Option<String>,
}

impl ExchangeOutcome {
    pub(super) fn of(code: &AuthorizationCode, account: Option<&AppId>) -> Self {
        let mut outcome = Self {
            account: account.cloned(),
            event: None,
            returned: None,
        };
        outcome.add(code);
        outcome
    }

    /// Notes that a code belongs to this outcome.
    pub(super) fn add(&mut self, code: &AuthorizationCode) {
        let hash = Some(pre_auth_code_hash(&code.code));
        match code.created {
            Some(_) => self.event = hash,
            None => self.returned = hash,
        }
    }

    /// Returns `true` if the outcome is that of this code too: WeChat sends one code with the event, and one
    /// with the browser. A further code of the same page is another authorization.
    pub(super) fn joins(&self, code: &AuthorizationCode) -> bool {
        let hash = pre_auth_code_hash(&code.code);
        let is_same = [&self.event, &self.returned].contains(&&Some(hash));
        let is_first_of_its_way = match code.created {
            Some(_) => self.event.is_none() && code.account == self.account,
            None => self.returned.is_none(),
        };
        is_same || (self.account.is_some() && is_first_of_its_way)
    }

    /// Returns the account.
    ///
    /// # Errors
    /// WeChat has refused the code.
    pub(super) fn result(&self) -> Result<AppId, Error> {
        self.account.clone().ok_or_else(|| refused(None))
    }

    pub(super) fn to_text(&self) -> String {
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        let account = self.account.as_ref().map_or("", |account| account.as_str());
        format!("{account}|{}|{}", text(&self.event), text(&self.returned))
    }

    pub(super) fn parse(text: &str) -> Self {
        let mut parts = text.split('|');
        let mut part = || parts.next().filter(|part| !part.is_empty());
        Self {
            account: part().and_then(|account| AppId::new(account).ok()),
            event: part().map(str::to_owned),
            returned: part().map(str::to_owned),
        }
    }
}

pub(super) fn is_code_refused(error: &Error) -> bool {
    error
        .errcode()
        .is_some_and(|code| CODE_REFUSED.contains(&code))
}

pub(super) fn refused(errcode: Option<i64>) -> Error {
    let message = "WeChat refuses the authorization code: it is invalid, used or expired. Open the \
                   page of the authorization again";
    Error::new(ErrorKind::BadRequest, message)
        .with_errcode(errcode.unwrap_or(CODE_REFUSED[1]), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str, account: Option<&str>) -> AuthorizationCode {
        AuthorizationCode {
            code: Zeroizing::new(text.to_owned()),
            pre_auth_hash: None,
            account: account.map(|account| AppId::new(account).unwrap()),
            created: account.map(|_| Timestamp::from_millis(1)),
        }
    }

    #[test]
    fn one_page_has_one_event_and_one_return() {
        let account = AppId::new("wxA").unwrap();
        let mut outcome = ExchangeOutcome::of(&code("event", Some("wxA")), Some(&account));
        assert_eq!(ExchangeOutcome::parse(&outcome.to_text()), outcome);
        assert!(
            outcome.joins(&code("event", Some("wxA"))),
            "a repeated event"
        );
        assert!(!outcome.joins(&code("later", Some("wxA"))));
        assert!(outcome.joins(&code("return", None)));
        outcome.add(&code("return", None));
        assert_eq!(ExchangeOutcome::parse(&outcome.to_text()), outcome);
        assert!(outcome.joins(&code("return", None)), "a reload");
        assert!(!outcome.joins(&code("another", None)));
        assert_eq!(outcome.result().unwrap(), account);

        let returned = ExchangeOutcome::of(&code("return", None), Some(&account));
        assert!(returned.joins(&code("event", Some("wxA"))));
        assert!(!returned.joins(&code("event", Some("wxB"))));
    }

    #[test]
    fn a_refused_code_stays_refused() {
        let refused = ExchangeOutcome::of(&code("used", None), None);
        let refused = ExchangeOutcome::parse(&refused.to_text());
        assert!(refused.joins(&code("used", None)));
        assert!(!refused.joins(&code("other", None)));
        assert!(is_code_refused(&refused.result().unwrap_err()));
    }
}
