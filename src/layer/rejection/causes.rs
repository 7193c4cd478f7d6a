//! The rejections that the layer makes, one for each cause.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;

use super::Rejection;
use crate::credential::InvalidIdentifier;
use crate::error::{Error, ErrorKind};
use crate::identity::Session;
use crate::login::{FailurePage, Scope};

/// The errcode of a call that needs a scope which the user has not granted.
const SCOPE_NOT_GRANTED: i64 = 48_001;

impl Rejection {
    pub(crate) fn login_required() -> Self {
        Self::new(ErrorKind::LoginRequired, None)
    }

    /// The layer's identity names nobody.
    pub(in crate::layer) fn unnamed() -> Self {
        Self {
            unnamed: true,
            ..Self::login_required()
        }
    }

    /// The user has granted less than this.
    pub(in crate::layer) fn missing_scope(scope: Scope, session: Session) -> Self {
        Self {
            scope: Some(scope),
            scope_declined: session.snapshot || session.scope_declined,
            ..Self::login_required()
        }
    }

    /// No layer lies around the handler.
    pub(crate) fn no_layer() -> Self {
        tracing::error!(
            target: "tower_wechat::layer",
            "a handler takes a WechatUser, but no WechatLayer lies around its route"
        );
        Self::misconfigured()
    }

    /// The login's own routes have nothing there.
    pub(in crate::layer) fn not_found() -> Self {
        Self {
            message: Cow::Borrowed("There is nothing at this address."),
            status: Some(StatusCode::NOT_FOUND),
            ..Self::new(ErrorKind::BadRequest, None)
        }
    }

    pub(crate) fn misconfigured() -> Self {
        Self::new(ErrorKind::Configuration, None)
    }

    /// A CORS preflight, which names no user.
    pub(in crate::layer) fn preflight() -> Self {
        let message = "A CORS preflight names no user. Put the CORS layer outside of the \
                       WechatLayer, or set WechatLayer::pass_preflights.";
        Self {
            message: Cow::Borrowed(message),
            ..Self::login_required()
        }
    }

    /// A login leads the browser on; the address is added to whatever is rendered.
    pub(in crate::layer) fn redirect() -> Self {
        Self {
            message: Cow::Borrowed("Go on to the address in the header Location."),
            status: Some(StatusCode::FOUND),
            ..Self::new(ErrorKind::LoginRequired, None)
        }
    }

    /// The content of a verification file. Status and type are added to whatever is rendered.
    pub(in crate::layer) fn verification_file(content: String) -> Self {
        Self {
            message: Cow::Owned(content),
            status: Some(StatusCode::OK),
            ..Self::new(ErrorKind::LoginRequired, None)
        }
    }

    /// A login that ended badly; a page for a reader, the same in one sentence for a program.
    pub(in crate::layer) fn from_failure_page(problem: FailurePage) -> Self {
        let kind = problem.failure.kind();
        Self {
            message: Cow::Owned(problem.message()),
            status: Some(problem.failure.status()),
            failure_page: Some(Box::new(problem)),
            ..Self::new(kind, None)
        }
    }

    pub(in crate::layer) fn invalid_user_id(invalid: InvalidIdentifier) -> Self {
        let message = format!("The request cannot name a user: {invalid}.");
        Self {
            message: Cow::Owned(message),
            ..Self::new(ErrorKind::BadRequest, None)
        }
    }

    fn new(kind: ErrorKind, retry_after: Option<Duration>) -> Self {
        let message = match kind {
            ErrorKind::LoginRequired => "Sign in with WeChat first.",
            ErrorKind::StoreUnavailable => "The store of tokens does not answer. Try again soon.",
            ErrorKind::WechatConfig => "WeChat does not accept this service at the moment.",
            ErrorKind::BadRequest => "The request cannot be right.",
            ErrorKind::Configuration => "The service is set up wrongly.",
            _ => "WeChat does not answer. Try again soon.",
        };
        Self {
            kind,
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

impl From<&Error> for Rejection {
    fn from(error: &Error) -> Self {
        // Whatever is behind it is told loudly, once, where it happened; this comes with every
        // request.
        if error.kind() != ErrorKind::LoginRequired {
            tracing::debug!(target: "tower_wechat::layer", code = error.kind().code(), %error, "no usable token");
        }
        let rejection = Self::new(error.kind(), error.retry_after());
        match error.kind() {
            // What is wrong with the request is its sender's to know.
            ErrorKind::BadRequest => Self {
                message: Cow::Owned(error.to_string()),
                ..rejection
            },
            // WeChat asks for the scope that this call needs.
            ErrorKind::LoginRequired if error.errcode() == Some(SCOPE_NOT_GRANTED) => Self {
                scope: Some(Scope::UserInfo),
                ..rejection
            },
            _ => rejection,
        }
    }
}
