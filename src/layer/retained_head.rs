//! The part of a request's head that the layer retains while the handler has the request.

use http::header::{COOKIE, ORIGIN, REFERER};
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Uri};

use super::account_layer::AccountLayer;
use super::rejection::Reject;
use crate::identity::{Identify, RequestHead, Session};
use crate::navigation::NavigationHeaders;

/// The part of a request's head with which the layer renders an error that the handler returns.
///
/// URIs and header values are reference-counted, so a copy of them copies no text.
pub(super) struct RetainedHead {
    method: Method,
    /// The URI that the browser requested. Nested routers remove their prefix from the request's URI.
    uri: Uri,
    /// The headers by which the layer recognizes page loads, which it redirects to the login.
    navigation: NavigationHeaders,
    /// The header `Referer`: the URL of the page whose script made the request.
    referer: Option<HeaderValue>,
    /// The header `Origin`: the origin of that page. Browsers send it with requests to another
    /// origin.
    origin: Option<HeaderValue>,
    /// The first value of `Cookie`. The cookies show whether this browser has completed a login
    /// within the last minute.
    cookie: Option<HeaderValue>,
    /// The values of `Cookie` after the first. HTTP/2 allows several values.
    more_cookies: Vec<HeaderValue>,
    /// `true` if another login would not grant a scope that the user lacks
    /// ([`Session::cannot_grant_more`]).
    pub(super) scope_declined: bool,
}

/// What the layer needs to complete the response of a handler.
pub(super) struct ResponseContext<I, R> {
    /// The layer, which renders an error of the handler and ends a session.
    pub(super) layer: AccountLayer<I, R>,
    /// The retained head of the handler's request. `None` if the handler's own rendering of an error
    /// is final.
    pub(super) retained: Option<RetainedHead>,
}

impl RetainedHead {
    pub(super) fn from_request<B>(request: &Request<B>, session: Session) -> Self {
        let headers = request.headers();
        let mut cookies = headers.get_all(COOKIE).iter().cloned();
        Self {
            method: request.method().clone(),
            uri: RequestHead::from_request(request).original_uri().clone(),
            navigation: NavigationHeaders::copy_from(headers),
            referer: headers.get(REFERER).cloned(),
            origin: headers.get(ORIGIN).cloned(),
            cookie: cookies.next(),
            more_cookies: cookies.collect(),
            scope_declined: session.cannot_grant_more(),
        }
    }

    /// Calls `render` with a head that has the retained values.
    pub(super) fn with_head<T>(&self, render: impl FnOnce(&RequestHead<'_>) -> T) -> T {
        let mut headers = HeaderMap::new();
        self.navigation.append_to(&mut headers);
        if let Some(referer) = &self.referer {
            headers.insert(REFERER, referer.clone());
        }
        if let Some(origin) = &self.origin {
            headers.insert(ORIGIN, origin.clone());
        }
        for cookie in self.cookie.iter().chain(&self.more_cookies) {
            headers.append(COOKIE, cookie.clone());
        }
        render(&RequestHead {
            method: &self.method,
            uri: &self.uri,
            headers: &headers,
            extensions: &Extensions::new(),
        })
    }
}

impl<I, R> AccountLayer<I, R> {
    /// Returns what the layer needs to complete the response of the request's handler. Returns
    /// `None` if that response is final: the renderer is the default one, and the layer has neither
    /// a login nor a session cookie.
    #[inline]
    pub(super) fn response_context<ReqBody, ResBody>(
        &self,
        request: &Request<ReqBody>,
        session: Session,
    ) -> Option<ResponseContext<I, R>>
    where
        I: Identify,
        R: Reject<ResBody>,
    {
        let renders = !R::IS_DEFAULT_RENDERING || self.parts.login.is_some();
        if !renders && self.settings.identity.session_cookie().is_none() {
            return None;
        }
        Some(ResponseContext {
            layer: self.clone(),
            retained: renders.then(|| RetainedHead::from_request(request, session)),
        })
    }
}
