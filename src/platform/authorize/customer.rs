//! The customer of the application for whom an account is authorized.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};

/// The customer of the application for whom an account is authorized, such as the id of a row.
///
/// A layer of the application around the [`AuthorizePages`](super::AuthorizePages) inserts it into
/// the extensions of a request. The customer then travels through WeChat in the authenticated state, and
/// comes back in [`AuthorizedAccount::customer`](super::AuthorizedAccount::customer). If the layer
/// inserts another customer when WeChat returns, or none, the pages reject the return.
///
/// ```
/// use axum::extract::Request;
/// use axum::http::StatusCode;
/// use axum::middleware::Next;
/// use axum::response::Response;
/// use tower_wechat::platform::Customer;
///
/// # fn signed_in_customer(_: &Request) -> Option<String> { None }
/// /// Lets only customers who are signed in to the application connect their accounts.
/// async fn guard(mut request: Request, next: Next) -> Result<Response, StatusCode> {
///     let customer = signed_in_customer(&request).ok_or(StatusCode::UNAUTHORIZED)?;
///     let customer = Customer::new(customer).map_err(|_| StatusCode::BAD_REQUEST)?;
///     request.extensions_mut().insert(customer);
///     Ok(next.run(request).await)
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Customer(Arc<str>);

impl Customer {
    /// Maximum length of the text: 128 bytes, so that the return URL stays short.
    pub(super) const MAX_BYTES: usize = 128;

    /// Creates a customer from the application's name for it.
    ///
    /// # Errors
    /// [`ErrorKind::BadRequest`]: the text is empty, longer than 128 bytes, or has a control character.
    pub fn new(name: impl AsRef<str>) -> Result<Self, Error> {
        let name = name.as_ref();
        let bad = |reason| Err(Error::new(ErrorKind::BadRequest, reason));
        if name.is_empty() {
            return bad("the name of a customer is empty");
        }
        if name.len() > Self::MAX_BYTES {
            return bad("the name of a customer is longer than 128 bytes");
        }
        if name.contains(char::is_control) {
            return bad("the name of a customer has a control character");
        }
        Ok(Self(name.into()))
    }

    /// Returns the application's name for the customer.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Customer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Customer").field(&self.as_str()).finish()
    }
}
