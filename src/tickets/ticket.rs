//! The `jsapi_ticket`, as callers receive it.

use std::fmt;
use std::time::Duration;

use crate::accounts::AccountCredential;
use crate::clock::Clock;
use crate::credential::{AccessToken, Lifetime};
use crate::provider::CacheEntry;

/// A `jsapi_ticket` and its lifetime. Cheap to clone.
///
/// [`Tickets::js_config`](super::Tickets::js_config) creates the usual signatures. Use the ticket
/// itself only for signatures of another form:
///
/// ```
/// use tower_wechat::{Error, Tickets, jssdk};
///
/// async fn signature(tickets: &Tickets, url: &str) -> Result<String, Error> {
///     let ticket = tickets.get().await?;
///     println!("expires in {} s", ticket.expires_in().as_secs());
///     Ok(jssdk::sign(ticket.ticket().expose(), "a nonce", 1_700_000_000, url))
/// }
/// ```
#[derive(Clone)]
pub struct JsapiTicket(AccountCredential);

impl JsapiTicket {
    pub(super) fn new(entry: CacheEntry, clock: &Clock) -> Self {
        Self(AccountCredential::new(entry, clock))
    }

    /// Returns the secret. Keep the secret on the server, because it can sign any page.
    pub fn ticket(&self) -> &AccessToken {
        self.0.secret()
    }

    /// Returns the times at which the ticket is due for renewal and expires.
    pub fn lifetime(&self) -> Lifetime {
        self.0.lifetime()
    }

    /// Returns the time until the ticket expires, or zero if the ticket has expired.
    pub fn expires_in(&self) -> Duration {
        self.0.expires_in()
    }
}

impl fmt::Debug for JsapiTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_as("JsapiTicket", f)
    }
}
