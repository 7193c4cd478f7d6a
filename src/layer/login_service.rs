//! The login's own paths as a service or as routes of an axum router.

use std::convert::Infallible;
use std::fmt;
use std::future::{Pending, pending};
use std::marker::PhantomData;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::call::handle_login_paths;
use super::future::ResponseFuture;
use super::rejection::Reject;
use super::{WechatLayer, WechatService};
use crate::identity::Identify;

/// Service that handles the paths of a [`Login`](crate::Login), and responds to other requests with 404.
///
/// [`WechatLayer::login_service`] creates it, for services without axum whose layer does not
/// receive every request. As the fallback of a router, it also detects callbacks that a proxy has
/// sent to a wrong path. It then returns an error page and logs the two paths.
///
/// ```
/// use std::convert::Infallible;
///
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_wechat::{CookieKeys, Login, MemoryStore, UserTokens, WechatClient, WechatLayer};
///
/// type Reply = Result<Response<Full<Bytes>>, Infallible>;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_wechat::Error> {
/// # let users = UserTokens::new(WechatClient::new("wx01", "secret")?, MemoryStore::new());
/// let login = Login::new("https://h5.example.com", CookieKeys::random()?)?;
/// let layer = WechatLayer::new(users).login(login);
/// let login = layer.login_service::<Full<Bytes>>();
/// let api = layer.layer(service_fn(async |_: Request<()>| Reply::Ok(Response::default())));
///
/// // The application's own router:
/// let route = async |request: Request<()>| match request.uri().path() {
///     path if login.handles(path) => login.clone().oneshot(request).await,
///     path if path.starts_with("/api/") => api.clone().oneshot(request).await,
///     _ => Reply::Ok(Response::default()),
/// };
/// let reply = route(Request::get("/wechat/login").body(()).unwrap()).await;
/// assert_eq!(reply.unwrap().status(), 302);
/// # Ok(()) }
/// ```
pub struct LoginService<B, I, R>(WechatService<NeverCalled<B>, I, R>);

impl<B, I, R> LoginService<B, I, R> {
    /// Returns `true` if this path is one of the login's own. Returns `false` for every path if the layer
    /// serves several accounts: mount the service as the fallback instead.
    pub fn handles(&self, path: &str) -> bool {
        let parts = self.0.accounts().parts();
        let login = parts.and_then(|parts| parts.login.as_ref());
        login.is_some_and(|login| login.handles_path(path))
    }
}

impl<B, I, R, ReqBody> Service<Request<ReqBody>> for LoginService<B, I, R>
where
    I: Identify,
    R: Reject<B>,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = ResponseFuture<NeverCalled<B>, I, R, ReqBody>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        self.0.call_with(request, handle_login_paths)
    }
}

impl<B, I, R> Clone for LoginService<B, I, R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B, I, R> fmt::Debug for LoginService<B, I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginService").finish_non_exhaustive()
    }
}

/// The inner service of the [`WechatService`] in a [`LoginService`]. It is never called.
#[doc(hidden)]
#[allow(unnameable_types)]
pub struct NeverCalled<B>(PhantomData<fn() -> B>);

impl<B, ReqBody> Service<Request<ReqBody>> for NeverCalled<B> {
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Pending<Result<Response<B>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<ReqBody>) -> Self::Future {
        pending()
    }
}

impl<B> Clone for NeverCalled<B> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<B> fmt::Debug for NeverCalled<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nothing")
    }
}

impl<I, R> WechatLayer<I, R> {
    /// Returns a service for the login's own paths, for applications without axum whose layer does not
    /// receive every request, and for layers of several accounts. `B` is the body of the responses, in
    /// axum `login_service::<axum::body::Body>()`. The service shares the login's state with this layer. [`LoginService`] has an
    /// example.
    pub fn login_service<B>(&self) -> LoginService<B, I, R> {
        if self.0.parts().is_some_and(|parts| parts.login.is_none()) {
            tracing::error!(
                target: "tower_wechat::login",
                "a layer without a login has no paths to mount: call WechatLayer::login first"
            );
        }
        let inner = NeverCalled(PhantomData);
        LoginService(WechatService::new(inner, self.0.clone()))
    }

    /// Returns a router with the login's own paths: `/wechat/callback` and `/wechat/login`, unless the
    /// [`Login`](crate::Login) has others. It also has these paths with a slash at the end, and, if the
    /// public URL has a prefix, with and without that prefix.
    ///
    /// A layer around the outermost router receives every request, and needs no such routes. The layer
    /// does not receive requests to the login's paths if its router
    ///
    /// - is nested (`nest("/api", …)`): it receives only requests under its prefix;
    /// - is merged with other routers: the order decides which router's fallback is kept;
    /// - has the layer through `route_layer`, which does not apply to paths without a route.
    ///
    /// After the login, WeChat would then redirect users to a 404. Merge these routes into the outermost
    /// router, at its root, before or after its other routes. Beside public routes, use `route_layer`:
    /// `layer` on a merged router may also wrap the paths that no router has.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// # use tower_wechat::{CookieKeys, MemoryStore, UserTokens, WechatClient};
    /// use tower_wechat::{Login, WechatLayer, WechatUser};
    ///
    /// # fn main() -> Result<(), tower_wechat::Error> {
    /// # let users = UserTokens::new(WechatClient::new("wx01", "secret")?, MemoryStore::new());
    /// let login = Login::new("https://h5.example.com", CookieKeys::random()?)?;
    /// let layer = WechatLayer::new(users).login(login);
    /// let routes = layer.login_routes();
    /// let api = Router::new()
    ///     .route("/me", get(async |user: WechatUser| user.id().to_owned()))
    ///     .layer(layer);
    /// let app: Router = Router::new()
    ///     .route("/healthz", get(async || "well"))
    ///     .nest("/api", api)
    ///     .merge(routes);
    /// # Ok(()) }
    /// ```
    ///
    /// A layer of several accounts has no such routes: this method logs an error and returns an empty
    /// router. Mount [`login_service`](Self::login_service) as the fallback of the outermost router:
    ///
    /// ```
    /// use axum::{Router, body::Body, routing::get};
    /// # use tower_wechat::layer::AccountSession;
    /// use tower_wechat::{WechatLayer, WechatUser};
    ///
    /// fn app(layer: WechatLayer<AccountSession>) -> Router {
    ///     let logins = layer.login_service::<Body>();
    ///     Router::new()
    ///         .route("/{account}/me", get(async |user: WechatUser| user.id().to_owned()))
    ///         .route_layer(layer)
    ///         .route("/healthz", get(async || "well"))
    ///         .fallback_service(logins)
    /// }
    /// ```
    #[cfg(feature = "axum")]
    #[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
    pub fn login_routes<S>(&self) -> axum::Router<S>
    where
        I: Identify + Send + Sync + 'static,
        R: Reject<axum::body::Body> + Send + Sync + 'static,
        S: Clone + Send + Sync + 'static,
    {
        let Some(parts) = self.0.parts() else {
            tracing::error!(
                target: "tower_wechat::login",
                "the paths of several accounts' logins are no routes: mount \
                 login_service::<axum::body::Body>() with fallback_service on the outermost router"
            );
            return axum::Router::new();
        };
        let service = self.login_service::<axum::body::Body>();
        let paths = parts.login.iter().flat_map(|login| login.route_paths());
        paths.fold(axum::Router::new(), |router, path| {
            router.route_service(&path, service.clone())
        })
    }
}
