//! Constructors of rejections, one for each reason to reject a request.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;

use super::Rejection;
use crate::credential::InvalidIdentifier;
use crate::error::{Error, ErrorKind};
use crate::identity::Session;
use crate::login::{FailurePage, Scope};

/// The errcode with which WeChat rejects a call because the user has not granted its scope.
const SCOPE_NOT_GRANTED: i64 = 48_001;

impl Rejection {
    /// Creates the rejection of a request whose user has to log in. If the layer has a
    /// [`Login`](crate::Login), a page load is redirected to the login, and a script receives the
    /// `login_url`.
    ///
    /// A handler returns it if the application cannot use the user's id, for example because the row
    /// of that id was deleted. If logins do not help, the browser gets a page after three of them.
    pub fn login_required() -> Self {
        Self::of_kind(ErrorKind::LoginRequired, None)
    }

    /// Creates the rejection of a request in which the layer's identity found no user.
    pub(in crate::layer) fn unnamed() -> Self {
        Self {
            unnamed: true,
            ..Self::login_required()
        }
    }

    /// Creates the rejection of a user who has not granted this scope. Users who cannot grant it
    /// ([`Session::cannot_grant_more`]) count as users who have declined it.
    pub(in crate::layer) fn missing_scope(scope: Scope, session: Session) -> Self {
        Self {
            scope: Some(scope),
            scope_declined: session.cannot_grant_more(),
            ..Self::login_required()
        }
    }

    /// Creates the rejection for a handler that takes a user although its route has no layer. Logs an
    /// error for the operator.
    pub(crate) fn no_layer() -> Self {
        tracing::error!(
            target: "tower_wechat::layer",
            "a handler took a WechatUser outside of a WechatLayer: put the layer around its route"
        );
        Self::misconfigured()
    }

    /// Creates the rejection of a request for an account that the layer does not serve.
    pub(in crate::layer) fn unknown_account() -> Self {
        Self::of_kind(ErrorKind::UnknownAccount, None)
    }

    /// Creates the rejection of a request to a `LoginService` whose path is not one of the login's.
    pub(in crate::layer) fn not_found() -> Self {
        Self {
            message: Cow::Borrowed("There is nothing at this address."),
            status: Some(StatusCode::NOT_FOUND),
            ..Self::of_kind(ErrorKind::BadRequest, None)
        }
    }

    /// Creates the rejection of a request that fails because the application is set up wrongly.
    pub(crate) fn misconfigured() -> Self {
        Self::of_kind(ErrorKind::Configuration, None)
    }

    /// Creates the rejection of a CORS preflight, which contains no user.
    pub(in crate::layer) fn preflight() -> Self {
        let message = "A CORS preflight names no user. Put the CORS layer outside of the \
                       WechatLayer, or set WechatLayer::pass_preflights.";
        Self {
            message: Cow::Borrowed(message),
            ..Self::login_required()
        }
    }

    /// Creates the value that the renderer receives for a redirect of a login. The caller adds the status
    /// and the header `Location` to the rendered response.
    pub(in crate::layer) fn redirect() -> Self {
        Self {
            message: Cow::Borrowed("Go on to the address in the header Location."),
            status: Some(StatusCode::FOUND),
            ..Self::of_kind(ErrorKind::LoginRequired, None)
        }
    }

    /// Creates the value that the renderer receives for a successful reply of the login, such as a
    /// verification file. The caller adds the status and the content type to the rendered response.
    pub(in crate::layer) fn content(content: String) -> Self {
        Self {
            message: Cow::Owned(content),
            status: Some(StatusCode::OK),
            ..Self::of_kind(ErrorKind::LoginRequired, None)
        }
    }

    /// Creates the rejection of a login that failed. Browsers receive the page, scripts receive the
    /// page's sentence.
    pub(in crate::layer) fn from_failure_page(page: FailurePage) -> Self {
        let kind = page.failure.kind();
        Self {
            message: Cow::Owned(page.message()),
            status: Some(page.failure.status()),
            failure_page: Some(Box::new(page)),
            ..Self::of_kind(kind, None)
        }
    }

    /// Creates the rejection of a request that names a user by a value that cannot be an id.
    pub(in crate::layer) fn invalid_user_id(invalid: InvalidIdentifier) -> Self {
        let message = format!("The request cannot name a user: {invalid}.");
        Self {
            message: Cow::Owned(message),
            ..Self::of_kind(ErrorKind::BadRequest, None)
        }
    }

    /// Creates a rejection of this kind with the kind's message. The message contains no address and no
    /// errcode, because strangers read it.
    pub(super) fn of_kind(kind: ErrorKind, retry_after: Option<Duration>) -> Self {
        let message = match kind {
            ErrorKind::LoginRequired => "Sign in with WeChat first.",
            ErrorKind::StoreUnavailable => "The store of tokens does not answer. Try again soon.",
            ErrorKind::WechatConfig => "WeChat does not accept this service at the moment.",
            ErrorKind::BadRequest => "The request cannot be right.",
            ErrorKind::Configuration => "The service is set up wrongly.",
            ErrorKind::InvalidState => "This login is not valid. Start again.",
            ErrorKind::LoginDenied => "This user cannot sign in.",
            ErrorKind::UnknownAccount => "There is no such account here.",
            ErrorKind::AccountsUnavailable => {
                "The accounts of this service cannot be read. Try again soon."
            }
            ErrorKind::PlatformStarting => {
                "This service waits for WeChat before it can start. Try again in some minutes."
            }
            ErrorKind::AccountNotAuthorized => {
                "This account does not allow the service at the moment."
            }
            ErrorKind::Application => "The service does not accept this.",
            ErrorKind::WechatUnavailable | ErrorKind::TokenRefused | ErrorKind::WechatRefused => {
                "WeChat does not answer. Try again soon."
            }
        };
        Self {
            kind,
            code: None,
            message: Cow::Borrowed(message),
            retry_after,
            login_url: None,
            status: None,
            failure_page: None,
            scope: None,
            scope_declined: false,
            unnamed: false,
            head: None,
        }
    }
}

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl From<InvalidIdentifier> for Rejection {
    fn from(invalid: InvalidIdentifier) -> Self {
        Self::from(Error::from(invalid))
    }
}

impl From<&Error> for Rejection {
    fn from(error: &Error) -> Self {
        // Log at debug level, because this runs for every rejected request. The code in which the
        // failure occurred has already logged it once.
        if error.kind() != ErrorKind::LoginRequired {
            tracing::debug!(target: "tower_wechat::layer", code = error.kind().code(), %error, "no usable token");
        }
        let rejection = Self::of_kind(error.kind(), error.retry_after());
        match error.kind() {
            // The client sent the invalid value, so the client receives the error's own text.
            ErrorKind::BadRequest => Self {
                message: Cow::Owned(error.to_string()),
                ..rejection
            },
            // A call for the user's profile failed, because the user has not granted
            // `snsapi_userinfo`. The login asks the user for that scope.
            ErrorKind::LoginRequired if error.errcode() == Some(SCOPE_NOT_GRANTED) => Self {
                scope: Some(Scope::UserInfo),
                ..rejection
            },
            ErrorKind::LoginRequired
            | ErrorKind::StoreUnavailable
            | ErrorKind::WechatUnavailable
            | ErrorKind::WechatConfig
            | ErrorKind::TokenRefused
            | ErrorKind::WechatRefused
            | ErrorKind::InvalidState
            | ErrorKind::LoginDenied
            | ErrorKind::UnknownAccount
            | ErrorKind::AccountsUnavailable
            | ErrorKind::PlatformStarting
            | ErrorKind::AccountNotAuthorized
            | ErrorKind::Configuration
            | ErrorKind::Application => rejection,
        }
    }
}
