//! What the layer keeps of a request that its handler has taken.

use std::sync::Arc;

use http::header::{ACCEPT, COOKIE, HeaderName, REFERER};
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Uri};

use super::rejection::Reject;
use super::shared::Shared;
use crate::identity::{RequestHead, Session};
use crate::navigation::script_headers;

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const X_REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// What is kept of a request while its handler works: enough to render an error that the handler
/// returns. Nothing in it is copied; URIs and headers share their memory.
pub(super) struct RetainedHead {
    method: Method,
    /// Before a router took a prefix away.
    uri: Uri,
    /// What says which kind of answer the client takes, and which page it asks from.
    accept: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    sec_fetch_mode: Option<HeaderValue>,
    /// Beside a mode only; among `more` otherwise.
    site: Option<HeaderValue>,
    x_requested_with: Option<HeaderValue>,
    /// What says whether the user was asked for a scope a moment ago.
    cookie: Option<HeaderValue>,
    /// Further values, and the headers by which scripts are known. Empty for nearly every request,
    /// and nothing is allocated then.
    more: Vec<(HeaderName, HeaderValue)>,
    /// `true` if the user has declined a scope, and for every user of a snapshot page.
    pub(super) scope_declined: bool,
}

/// The layer that renders an error of a handler, and the retained head of the handler's request.
pub(super) type RejectionContext<I, R> = (Arc<Shared<I, R>>, RetainedHead);

impl RetainedHead {
    pub(super) fn from_request<B>(request: &Request<B>, session: Session) -> Self {
        let headers = request.headers();
        let mode = headers.get(SEC_FETCH_MODE);
        let mut more = Vec::new();
        // HTTP/2 splits cookies.
        let mut all = |name: HeaderName| {
            let mut values = headers.get_all(&name).iter().cloned();
            let first = values.next();
            more.extend(values.map(|value| (name.clone(), value)));
            first
        };
        let (accept, cookie) = (all(ACCEPT), all(COOKIE));
        if mode.is_none() && accept.is_some() {
            more.extend(script_headers(headers));
        }
        Self {
            more,
            method: request.method().clone(),
            uri: RequestHead::from_request(request).original_uri().clone(),
            accept,
            referer: headers.get(REFERER).cloned(),
            sec_fetch_mode: mode.cloned(),
            site: mode.and_then(|_| headers.get(SEC_FETCH_SITE)).cloned(),
            x_requested_with: headers.get(X_REQUESTED_WITH).cloned(),
            cookie,
            scope_declined: session.snapshot || session.scope_declined,
        }
    }

    /// Calls `render` with a head that is made of what was kept.
    pub(super) fn with_head<T>(&self, render: impl FnOnce(&RequestHead<'_>) -> T) -> T {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (ACCEPT, &self.accept),
            (REFERER, &self.referer),
            (SEC_FETCH_MODE, &self.sec_fetch_mode),
            (SEC_FETCH_SITE, &self.site),
            (X_REQUESTED_WITH, &self.x_requested_with),
            (COOKIE, &self.cookie),
        ] {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
        for (name, value) in &self.more {
            headers.append(name, value.clone());
        }
        render(&RequestHead {
            method: &self.method,
            uri: &self.uri,
            headers: &headers,
            extensions: &Extensions::new(),
        })
    }
}

impl<I, R> Shared<I, R> {
    /// Returns what the layer needs to render an error of the request's handler; `None` where the
    /// handler's own response is already in the layer's form.
    #[inline]
    pub(super) fn rejection_context<ReqBody, ResBody>(
        self: &Arc<Self>,
        request: &Request<ReqBody>,
        session: Session,
    ) -> Option<RejectionContext<I, R>>
    where
        R: Reject<ResBody>,
    {
        if R::IS_DEFAULT_RENDERING && self.login.is_none() {
            return None;
        }
        Some((
            Arc::clone(self),
            RetainedHead::from_request(request, session),
        ))
    }
}
