//! [`InvalidToken`]: errors by which `with_token` recognizes a token that WeChat rejected.

use super::{Error, ErrorKind};

/// Errors that report whether WeChat rejected the token of a call (errcodes 40001, 40014, 42001).
///
/// [`UserTokens::with_token`](crate::UserTokens::with_token) and
/// [`AccountTokens::with_token`](crate::AccountTokens::with_token) accept calls that return such an
/// error. [`Error`] and boxed errors implement the trait, and `anyhow::Error` with the feature
/// `anyhow`. These find an [`Error`] that is a [source](std::error::Error::source) of another error.
/// An error with thiserror's attribute `transparent` does not return the wrapped error as its source,
/// and so hides it.
///
/// An error type of the application implements the trait itself:
///
/// ```
/// use tower_wechat::client::InvalidToken;
/// use tower_wechat::Error;
///
/// #[derive(Debug)]
/// enum MyError { Wechat(Error), Other }
///
/// impl InvalidToken for MyError {
///     fn is_token_invalid(&self) -> bool {
///         matches!(self, MyError::Wechat(error) if error.is_token_invalid())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not report whether WeChat rejected a token",
    label = "`with_token` needs a call whose error implements `InvalidToken`",
    note = "for an error type of your own, implement `tower_wechat::client::InvalidToken`",
    note = "for `anyhow::Error`, enable the feature `anyhow` of tower-wechat"
)]
pub trait InvalidToken {
    /// Returns `true` if WeChat rejected the token of the call, so that a new token may help.
    fn is_token_invalid(&self) -> bool;
}

impl InvalidToken for Error {
    fn is_token_invalid(&self) -> bool {
        self.kind() == ErrorKind::TokenRefused
    }
}

/// Looks for an [`Error`] in the error and its [sources](std::error::Error::source), so that
/// errors around it do not hide it. An `anyhow::Error` that was converted into a box hides it, unless
/// it has a `context`.
impl InvalidToken for Box<dyn std::error::Error + Send + Sync> {
    fn is_token_invalid(&self) -> bool {
        let first: &(dyn std::error::Error + 'static) = &**self;
        any_is_token_invalid(std::iter::successors(Some(first), |error| error.source()))
    }
}

/// Looks for an [`Error`] in the error and its sources, so that a `context` does not hide it.
#[cfg(feature = "anyhow")]
#[cfg_attr(docsrs, doc(cfg(feature = "anyhow")))]
impl InvalidToken for anyhow::Error {
    fn is_token_invalid(&self) -> bool {
        any_is_token_invalid(self.chain())
    }
}

fn any_is_token_invalid<'a>(
    mut errors: impl Iterator<Item = &'a (dyn std::error::Error + 'static)>,
) -> bool {
    errors.any(|error| {
        let error = error.downcast_ref::<Error>();
        error.is_some_and(Error::is_token_invalid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Boxed = Box<dyn std::error::Error + Send + Sync>;

    fn refused() -> Error {
        Error::new(ErrorKind::TokenRefused, "40001")
    }

    fn busy() -> Error {
        Error::new(ErrorKind::WechatUnavailable, "-1")
    }

    #[derive(Debug, thiserror::Error)]
    #[error("greeting a user failed")]
    struct Wrapped(#[source] Error);

    #[test]
    fn boxed_errors_are_searched() {
        assert!(Boxed::from(refused()).is_token_invalid());
        assert!(Boxed::from(Wrapped(refused())).is_token_invalid());
        assert!(!Boxed::from(Wrapped(busy())).is_token_invalid());
        assert!(!Boxed::from("40001").is_token_invalid());
    }

    #[cfg(feature = "anyhow")]
    #[test]
    fn a_context_hides_no_error() {
        use anyhow::Context;

        let error = Err::<(), _>(refused()).context("the first call");
        let error = error.context("the job").unwrap_err();
        assert!(error.is_token_invalid(), "{error:?}");
        assert!(anyhow::Error::from(Wrapped(refused())).is_token_invalid());
        let error = anyhow::Error::from(busy()).context("the job");
        assert!(!error.is_token_invalid(), "{error:?}");
        assert!(!anyhow::anyhow!("40001").is_token_invalid());
    }
}
