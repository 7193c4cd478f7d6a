//! The handling of one request, whose account has been selected.

use http::header::ACCESS_CONTROL_REQUEST_METHOD;
use http::{Method, Request, Response};
use tower_service::Service;

use super::account_layer::AccountLayer;
use super::future::{PendingRequest, ResponseFuture};
use super::rejection::{Reject, Rejection};
use super::{Policy, WechatUser};
use crate::credential::UserId;
use crate::identity::{IdentifiedUser, Identify, Identity, RequestHead, Session};
use crate::login::{HandlerReply, LoginHandler};
use crate::metrics::RequestOutcome;

/// Handles a request with the layer as it serves the request's account.
#[inline]
pub(super) fn handle_request<S, I, R, ReqBody, ResBody>(
    inner: &mut S,
    layer: &AccountLayer<I, R>,
    request: Request<ReqBody>,
) -> ResponseFuture<S, I, R, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    I: Identify,
    R: Reject<ResBody>,
{
    ServiceCall { inner, layer }.handle(request)
}

/// Handles a request for one of the login's own paths, and rejects every other request with 404.
pub(super) fn handle_login_paths<S, I, R, ReqBody, ResBody>(
    inner: &mut S,
    layer: &AccountLayer<I, R>,
    request: Request<ReqBody>,
) -> ResponseFuture<S, I, R, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    I: Identify,
    R: Reject<ResBody>,
{
    let head = RequestHead::from_request(&request);
    if let Some(login) = &layer.parts.login {
        if login.handles_path(head.original_uri().path()) {
            return ServiceCall { inner, layer }.handle_login(request);
        }
        if let Some(reply) = login.reject_misrouted_callback(&head) {
            return ResponseFuture::ready(layer.settings.respond(reply, &head));
        }
    }
    let rejection = Rejection::not_found();
    ResponseFuture::ready(layer.settings.render(&rejection, &head))
}

/// Releases what the inner service has reserved in `poll_ready`, such as a permit of a concurrency
/// limit. This service may be idle for long after that, as the service of a connection is between
/// requests.
pub(super) fn release_reservation<S: Clone>(inner: &mut S) {
    // A clone has no reservation. The instance that has one is dropped.
    *inner = inner.clone();
}

/// The handling of one request: the inner service, and the layer as it serves the request's account.
struct ServiceCall<'a, S, I, R> {
    inner: &'a mut S,
    layer: &'a AccountLayer<I, R>,
}

impl<S, I, R> ServiceCall<'_, S, I, R> {
    #[inline]
    fn handle<ReqBody, ResBody>(
        self,
        mut request: Request<ReqBody>,
    ) -> ResponseFuture<S, I, R, ReqBody>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
        I: Identify,
        R: Reject<ResBody>,
    {
        let AccountLayer { settings, parts } = self.layer;
        if let Some(account) = &parts.account {
            account.insert_into(&mut request);
        }
        if is_preflight(&request) {
            return self.handle_preflight(request);
        }
        let head = RequestHead::from_request(&request);
        if let Some(login) = &parts.login
            && login.handles_path(head.original_uri().path())
        {
            return self.handle_login(request);
        }
        if let Some(login) = &parts.login
            && let Some(reply) = login.reject_misrouted_callback(&head)
        {
            settings.count_request(RequestOutcome::Rejected, head.extensions);
            let response = settings.respond(reply, &head);
            return self.respond_without_inner(response);
        }
        match settings.identity.identify(&head) {
            Identity::User(user) if !parts.has_user_of(user.session) => {
                self.reject_or_pass(Rejection::unnamed(), request)
            }
            Identity::User(user) => {
                let users = parts.users_for(user.session);
                let Some(token) = users.cached_by_id(&user.id) else {
                    return self.wait_for_token(user.into_owned(), request);
                };
                if user.session.is_revoked(token.sessions_valid_from()) {
                    return self.reject_or_pass(Rejection::login_required(), request);
                }
                if let Some(scope) = settings.required_scope
                    && LoginHandler::lacks_scope(&token, scope)
                {
                    let rejection = Rejection::missing_scope(scope, user.session);
                    return self.reject_or_pass(rejection, request);
                }
                let set_cookie = user.set_cookie;
                let context = self
                    .layer
                    .response_context::<_, ResBody>(&request, user.session);
                if WechatUser::insert_into(&mut request, token, users) {
                    settings.request_counter.count(RequestOutcome::Cache);
                }
                ResponseFuture::calling(self.inner.call(request), set_cookie, context)
            }
            Identity::Anonymous => self.reject_or_pass(Rejection::unnamed(), request),
            Identity::Invalid(invalid) => {
                let response = self
                    .layer
                    .reject(Rejection::invalid_user_id(invalid), &head);
                self.respond_without_inner(response)
            }
        }
    }

    /// Returns a response that the layer made itself. The inner service was polled ready and is not
    /// called, so its reservation is released.
    fn respond_without_inner<ReqBody>(
        self,
        response: S::Response,
    ) -> ResponseFuture<S, I, R, ReqBody>
    where
        S: Service<Request<ReqBody>> + Clone,
    {
        release_reservation(self.inner);
        ResponseFuture::ready(response)
    }

    /// Lets a CORS preflight pass without a user, or rejects it, by the layer's settings.
    fn handle_preflight<ReqBody, ResBody>(
        self,
        request: Request<ReqBody>,
    ) -> ResponseFuture<S, I, R, ReqBody>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
        I: Identify,
        R: Reject<ResBody>,
    {
        match self.layer.settings.pass_preflights {
            true => self.pass_without_user(Rejection::login_required(), request),
            false => self.reject_or_pass(Rejection::preflight(), request),
        }
    }

    /// Passes a request for one of the login's own paths to the login.
    ///
    /// The identity is read only if the login stores tokens under the identity's user id.
    fn handle_login<ReqBody, ResBody>(
        self,
        request: Request<ReqBody>,
    ) -> ResponseFuture<S, I, R, ReqBody>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
        I: Identify,
        R: Reject<ResBody>,
    {
        release_reservation(self.inner);
        let layer = self.layer;
        let head = RequestHead::from_request(&request);
        let Some(login) = &layer.parts.login else {
            return ResponseFuture::ready(layer.reject(Rejection::login_required(), &head));
        };
        layer.settings.request_counter.count(RequestOutcome::Login);
        let identified = match login
            .binds_to_identity()
            .then(|| layer.settings.identity.identify(&head))
        {
            Some(Identity::User(user)) => UserId::new(user.id.into_owned()).ok(),
            Some(Identity::Invalid(invalid)) => {
                let rejection = Rejection::invalid_user_id(invalid);
                return ResponseFuture::ready(layer.reject(rejection, &head));
            }
            Some(Identity::Anonymous) | None => None,
        };
        match login.handle(&head, identified) {
            HandlerReply::Ready(reply) => {
                ResponseFuture::ready(layer.settings.respond(reply, &head))
            }
            HandlerReply::Pending(reply) => {
                ResponseFuture::handling_login(reply, request, layer.clone())
            }
        }
    }

    /// Rejects a request without a usable user, or lets it pass without a user, by the policy.
    fn reject_or_pass<ReqBody, ResBody>(
        self,
        rejection: Rejection,
        request: Request<ReqBody>,
    ) -> ResponseFuture<S, I, R, ReqBody>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
        I: Identify,
        R: Reject<ResBody>,
    {
        match self.layer.settings.policy {
            Policy::Optional => self.pass_without_user(rejection, request),
            Policy::Required => {
                let response = self
                    .layer
                    .reject(rejection, &RequestHead::from_request(&request));
                self.respond_without_inner(response)
            }
        }
    }

    /// Inserts the rejection for handlers that require a user, and calls the inner service without
    /// a user.
    fn pass_without_user<ReqBody, ResBody>(
        self,
        rejection: Rejection,
        mut request: Request<ReqBody>,
    ) -> ResponseFuture<S, I, R, ReqBody>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>>,
        I: Identify,
        R: Reject<ResBody>,
    {
        self.layer.pass_without_user(rejection, &mut request);
        let context = self
            .layer
            .response_context::<_, ResBody>(&request, Session::default());
        ResponseFuture::calling(self.inner.call(request), None, context)
    }

    /// Returns a future that loads the user's token and then calls the inner service.
    fn wait_for_token<ReqBody, ResBody>(
        self,
        user: IdentifiedUser<'static>,
        request: Request<ReqBody>,
    ) -> ResponseFuture<S, I, R, ReqBody>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
        I: Identify,
        R: Reject<ResBody>,
    {
        // Other requests may need the reservation while this request waits for its token. The
        // future polls a clone of the inner service once the token is loaded.
        release_reservation(self.inner);
        let IdentifiedUser {
            id,
            set_cookie,
            session,
        } = user;
        let context = self.layer.response_context::<_, ResBody>(&request, session);
        let pending = PendingRequest {
            inner: self.inner.clone(),
            request,
            layer: self.layer.clone(),
            session,
        };
        ResponseFuture::loading_token(
            self.layer.load_token(id, session),
            pending,
            set_cookie,
            context,
        )
    }
}

/// Returns `true` for a CORS preflight. Browsers send preflights without cookies.
fn is_preflight<B>(request: &Request<B>) -> bool {
    *request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}
