//! What a login answers, before it is made a response.

use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::page;
use super::state::BadState;
use crate::error::{Error, ErrorKind};
use crate::reaction::Reaction;

/// What a request to the login, or one without a user, is answered with.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    /// Values of `Set-Cookie`.
    pub(crate) cookies: Vec<HeaderValue>,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    /// The browser goes on, to WeChat or to the page.
    Redirect(HeaderValue),
    /// The user reads what happened.
    Problem(Problem),
    /// WeChat reads the content of a verification file.
    File(String),
}

/// What the user is told, and what they can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) what: Trouble,
    /// Where the page's button leads: a path of our own.
    pub(crate) onward: String,
    pub(crate) retry_after: Option<Duration>,
}

impl Problem {
    /// The page that tells it, with all that it needs inside.
    pub(crate) fn html(&self) -> String {
        page::html(self)
    }

    /// One sentence, for programs.
    pub(crate) fn sentence(&self) -> String {
        page::sentence(self.what)
    }
}

/// What can stand in a user's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Trouble {
    /// The request makes no sense.
    BadRequest,
    /// WeChat has sent the user back to a path that is not the callback's.
    Misplaced,
    /// The login has expired.
    Expired,
    /// The login is not one of this browser, or none of ours.
    Unknown,
    /// The user said no at WeChat's page.
    Denied,
    /// The user is virtual, and this application does not take such.
    SnapshotRefused,
    /// WeChat says that this user must not come in.
    Barred,
    /// The user was asked for their profile and has not granted it.
    ProfileNotGranted,
    /// This is no browser of WeChat's.
    OutsideWechat,
    /// The login began anew too often.
    TooOften,
    /// Logins succeed, and the requests behind them name nobody.
    NotKept,
    /// WeChat does not take the code.
    NotAccepted,
    /// WeChat does not take this service.
    Misconfigured,
    /// WeChat does not answer.
    WechatAway,
    /// The store does not answer.
    StoreAway,
}

impl Trouble {
    /// What went wrong, by the one list of kinds.
    pub(crate) fn kind(self) -> ErrorKind {
        match self {
            Self::BadRequest | Self::Misplaced => ErrorKind::BadRequest,
            Self::Expired | Self::Unknown => ErrorKind::InvalidState,
            Self::Denied
            | Self::SnapshotRefused
            | Self::Barred
            | Self::ProfileNotGranted
            | Self::OutsideWechat
            | Self::TooOften
            | Self::NotKept => ErrorKind::LoginDenied,
            Self::NotAccepted => ErrorKind::WechatRefused,
            Self::Misconfigured => ErrorKind::WechatConfig,
            Self::WechatAway => ErrorKind::WechatUnavailable,
            Self::StoreAway => ErrorKind::StoreUnavailable,
        }
    }

    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::Misplaced | Self::Expired | Self::Unknown => {
                StatusCode::BAD_REQUEST
            }
            Self::Denied
            | Self::SnapshotRefused
            | Self::Barred
            | Self::ProfileNotGranted
            | Self::OutsideWechat => StatusCode::FORBIDDEN,
            Self::TooOften | Self::NotKept => StatusCode::TOO_MANY_REQUESTS,
            Self::NotAccepted | Self::Misconfigured => StatusCode::BAD_GATEWAY,
            Self::WechatAway | Self::StoreAway => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What an error of the store or of the exchange means to the user; `None` where beginning
    /// anew helps.
    pub(crate) fn of_exchange(error: &Error) -> Option<Self> {
        Some(match (error.kind(), error.reaction()) {
            (ErrorKind::LoginRequired, _) => return None,
            (_, Some(Reaction::Deny)) => Self::Barred,
            (ErrorKind::WechatConfig | ErrorKind::Configuration, _) => Self::Misconfigured,
            (ErrorKind::WechatUnavailable, _) => Self::WechatAway,
            (ErrorKind::StoreUnavailable, _) => Self::StoreAway,
            _ => Self::NotAccepted,
        })
    }

    /// What an error that stands in a page's way means to the user.
    pub(crate) fn of_page(kind: ErrorKind) -> Option<Self> {
        Some(match kind {
            ErrorKind::StoreUnavailable => Self::StoreAway,
            ErrorKind::WechatUnavailable | ErrorKind::TokenRefused | ErrorKind::WechatRefused => {
                Self::WechatAway
            }
            ErrorKind::WechatConfig => Self::Misconfigured,
            ErrorKind::BadRequest => Self::BadRequest,
            _ => return None,
        })
    }

    /// Its name in logs and in what the store keeps.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Misplaced => "misplaced",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
            Self::Denied => "denied",
            Self::SnapshotRefused => "snapshot_refused",
            Self::Barred => "barred",
            Self::ProfileNotGranted => "profile_not_granted",
            Self::OutsideWechat => "outside_wechat",
            Self::TooOften => "too_often",
            Self::NotKept => "not_kept",
            Self::NotAccepted => "not_accepted",
            Self::Misconfigured => "misconfigured",
            Self::WechatAway => "wechat_away",
            Self::StoreAway => "store_away",
        }
    }

    pub(crate) const ALL: [Self; 15] = [
        Self::BadRequest,
        Self::Misplaced,
        Self::Expired,
        Self::Unknown,
        Self::Denied,
        Self::SnapshotRefused,
        Self::Barred,
        Self::ProfileNotGranted,
        Self::OutsideWechat,
        Self::TooOften,
        Self::NotKept,
        Self::NotAccepted,
        Self::Misconfigured,
        Self::WechatAway,
        Self::StoreAway,
    ];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|trouble| trouble.name() == name)
    }

    /// Whether it may be gone in a moment.
    pub(crate) fn passes(self) -> bool {
        matches!(self, Self::WechatAway | Self::StoreAway)
    }
}

impl From<BadState> for Trouble {
    fn from(bad: BadState) -> Self {
        match bad {
            BadState::Forged => Self::Unknown,
            BadState::Expired(_) => Self::Expired,
        }
    }
}
