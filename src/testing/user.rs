//! Users of tests, without a layer and without network.

use crate::layer::{AnonymousRequest, WechatUser};
use crate::login::Scope;
use crate::wechat::{UserInfo, UserTokenResponse, WechatClient};
use crate::{MemoryStore, UserId, UserTokens};

/// A user for tests, from which [`build`](Self::build) makes a [`WechatUser`] without network and
/// without a layer.
///
/// The user goes into the extensions of a request, where a layer would have put it:
///
/// ```
/// use axum::{Extension, Router, routing::get};
/// use tower_wechat::testing::{Browser, TestUser};
/// use tower_wechat::{Error, WechatUser};
///
/// async fn greet(user: WechatUser) -> Result<String, Error> {
///     Ok(format!("hello {}", user.profile().await?.nickname))
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let alice = TestUser::new("oAlice").nickname("Alice").build();
/// let app = Router::new().route("/", get(greet)).layer(Extension(alice.clone()));
/// assert_eq!(Browser::new("http://localhost", app).open("/").await.body(), "hello Alice");
///
/// // Without axum, and for a handler that is called directly:
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(alice.clone());
/// assert_eq!(WechatUser::required(&request).unwrap().id(), "oAlice");
/// assert_eq!(greet(alice).await.unwrap(), "hello Alice");
/// # }
/// ```
///
/// A [`WechatLayer`](crate::WechatLayer) inside of that extension replaces the user, so such tests call
/// the routes without the layer. A [`Browser`](super::Browser) logs in through the layer.
///
/// The token is fresh for two hours. [`WechatUser::profile`] returns the profile that was set.
/// [`WechatUser::with_token`] runs its call with the token, and [`WechatUser::revoke`] works. Calls
/// of WeChat's API through [`UserTokens::wechat`] fail with an error of the kind
/// [`Configuration`](crate::ErrorKind::Configuration).
#[derive(Debug, Clone)]
#[must_use = "a test user does nothing until `build` is called"]
pub struct TestUser {
    id: String,
    app_id: String,
    openid: Option<String>,
    unionid: Option<String>,
    scope: Option<Scope>,
    profile: Option<UserInfo>,
    snapshot: bool,
}

impl TestUser {
    /// Creates a user with this id, which is also the openid unless [`openid`](Self::openid) sets
    /// another one.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            app_id: "wx0123456789abcdef".to_owned(),
            openid: None,
            unionid: None,
            scope: None,
            profile: None,
            snapshot: false,
        }
    }

    /// Sets the AppID of the account whose user this is. Default: `wx0123456789abcdef`, as in the
    /// simulator.
    pub fn app_id(mut self, app_id: impl Into<String>) -> Self {
        self.app_id = app_id.into();
        self
    }

    /// Sets the openid, for applications whose user ids are not openids. Default: the user id.
    pub fn openid(mut self, openid: impl Into<String>) -> Self {
        self.openid = Some(openid.into());
        self
    }

    /// Sets the unionid. Default: none.
    pub fn unionid(mut self, unionid: impl Into<String>) -> Self {
        self.unionid = Some(unionid.into());
        self
    }

    /// Sets the scope that the user has granted. Default: [`Scope::UserInfo`] for a user with a
    /// profile, else [`Scope::Base`].
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    /// Sets the nickname in the user's profile, which [`WechatUser::profile`] returns. Default: the
    /// user has no profile.
    pub fn nickname(mut self, nickname: impl Into<String>) -> Self {
        self.profile.get_or_insert_default().nickname = nickname.into();
        self
    }

    /// Sets the URL of the avatar in the user's profile, which [`WechatUser::profile`] returns.
    /// Default: the user has no profile.
    pub fn avatar(mut self, url: impl Into<String>) -> Self {
        self.profile.get_or_insert_default().headimgurl = url.into();
        self
    }

    /// Sets whether this is the virtual user of a snapshot page (快照页). Default: `false`.
    pub fn snapshot(mut self, snapshot: bool) -> Self {
        self.snapshot = snapshot;
        self
    }

    /// Creates the user of a request.
    ///
    /// # Panics
    /// Panics if the user id or the AppID is invalid.
    #[track_caller]
    pub fn build(self) -> WechatUser {
        let id = match UserId::new(&self.id) {
            Ok(id) => id,
            Err(why) => panic!("a test user cannot have the id {:?}: {why}", self.id),
        };
        let client = match WechatClient::without_network(&self.app_id) {
            Ok(client) => client,
            Err(why) => panic!("a test user cannot have the AppID {:?}: {why}", self.app_id),
        };
        let default_scope = match self.profile {
            Some(_) => Scope::UserInfo,
            None => Scope::Base,
        };
        let openid = self.openid.unwrap_or(self.id);
        let mut response = UserTokenResponse::new("a-test-user-s-access-token")
            .expires_in(TOKEN_SECONDS)
            .openid(openid.clone())
            .scope(self.scope.unwrap_or(default_scope).as_str())
            .snapshot(self.snapshot);
        if let Some(unionid) = &self.unionid {
            response = response.unionid(unionid.clone());
        }
        let profile = self.profile.map(|profile| UserInfo {
            openid,
            unionid: self.unionid,
            ..profile
        });
        let users = UserTokens::builder(client, MemoryStore::new()).cache_capacity(16);
        let users = users.build().for_user(self.snapshot).clone();
        match users.preset(&id, &response, profile) {
            Ok(token) => WechatUser::without_layer(token, users),
            Err(why) => panic!("a test user cannot be stored: {why}"),
        }
    }
}

/// Lifetime of a test user's token in seconds: two hours, as WeChat's tokens have.
const TOKEN_SECONDS: i64 = 7_200;

/// Returns the extension of a request without a user, for tests of routes without a layer.
///
/// With this extension the extractors behave as behind a layer with
/// [`Policy::Optional`](crate::Policy::Optional) and without a login. `Option<WechatUser>` is `None`,
/// and a handler that requires a user is rejected with 401. Without a layer and without this
/// extension, the status is 500.
///
/// ```
/// use http::Request;
/// use tower_wechat::WechatUser;
/// use tower_wechat::testing::anonymous;
///
/// let mut request = Request::new(());
/// request.extensions_mut().insert(anonymous());
/// let rejection = WechatUser::required(&request).unwrap_err();
/// assert_eq!(rejection.status(), 401);
/// ```
pub fn anonymous() -> impl Clone + Send + Sync + 'static {
    AnonymousRequest::without_layer()
}
