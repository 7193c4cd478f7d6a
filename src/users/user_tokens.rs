//! [`UserTokens`]: the access tokens of an account's users.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::logins::LoginWrite;
use super::profile::ProfileCache;
use super::sessions::{SNAPSHOT_SESSION_LIFETIME, longest_session_lifetime};
use super::token::{GrantedScope, UserToken};
use crate::clock::Clock;
use crate::credential::{AccessToken, AppId, UserId};
use crate::error::{Error, ErrorKind, InvalidToken};
use crate::provider::CredentialProvider;
use crate::store::{CredentialKind, LeaseOwner, LoginCodeKey, Store};
use crate::wechat::{Language, UserInfo, UserTokenResponse, WechatClient};

/// Access tokens of an account's users.
///
/// A store that all processes share holds the tokens. When a token is due, exactly one process
/// renews it. Each process caches in memory the tokens that it uses.
///
/// Clones are cheap and share all state.
///
/// ```
/// use tower_wechat::client::UserTokenResponse;
/// use tower_wechat::{MemoryStore, UserId, UserTokens, WechatClient};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_wechat::Error> {
/// let wechat = WechatClient::new("wx0123456789abcdef", "secret")?;
/// let users = UserTokens::new(wechat, MemoryStore::new());
///
/// // After a login:
/// let user = UserId::new("oUser")?;
/// users.store(&user, &UserTokenResponse::new("83_token").expires_in(7_200)).await?;
/// // Whenever the token is needed:
/// assert_eq!(users.get(&user).await?.access_token().expose(), "83_token");
/// # Ok(()) }
/// ```
///
/// Jobs and other frameworks use the tokens without the layer:
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::{Error, UserId, UserTokens};
///
/// async fn job(users: &UserTokens, user: &UserId) -> Result<(), Error> {
///     let token = match users.cached(user) {
///         Some(token) => token,
///         None => users.get(user).await?,
///     };
/// #   let rejected = true;
///     // … a call of WeChat's API with the token. If WeChat rejects the token:
///     if rejected {
///         users.report_invalid(user, token.access_token()).await?;
///     }
///     println!("hello {}", users.profile(user).await?.nickname);
///     // … when the user closes the account:
///     users.revoke(user).await
/// }
///
/// async fn stop(users: UserTokens) {
///     println!("{}: {} users in memory", users.app_id(), users.cached_users());
///     if let Err(error) = users.health().await {
///         eprintln!("the store does not answer: {error}");
///     }
///     users.shutdown(Duration::from_secs(10)).await;
/// }
/// ```
#[derive(Clone)]
pub struct UserTokens(pub(super) Arc<Inner>);

/// The state that all clones share. It is behind a single `Arc`, because every request with a user
/// clones the handle once.
pub(super) struct Inner {
    pub(super) provider: CredentialProvider,
    pub(super) store: Arc<dyn Store>,
    pub(super) wechat: WechatClient,
    pub(super) profiles: ProfileCache,
    /// The tokens of virtual users of snapshot pages (快照页). These tokens have separate keys in the
    /// store and are never renewed. `None` if this is already the instance for virtual users.
    pub(super) snapshot_users: Option<UserTokens>,
}

impl UserTokens {
    /// Returns the AppID of the account that the users belong to.
    pub fn app_id(&self) -> &AppId {
        self.0.provider.app()
    }

    /// Returns the client that renews the tokens.
    pub fn wechat(&self) -> &WechatClient {
        &self.0.wechat
    }

    /// Returns a usable token of the user: from memory, else from the store. Renews the token first
    /// if it has expired.
    ///
    /// A token that is due for renewal but has not expired is returned at once, and renewed in the
    /// background. A renewal continues if the caller stops waiting.
    ///
    /// # Errors
    /// - [`ErrorKind::LoginRequired`]: the user has no usable token, and only a login can create
    ///   one.
    /// - [`ErrorKind::StoreUnavailable`], [`ErrorKind::WechatUnavailable`],
    ///   [`ErrorKind::WechatConfig`]: the store or WeChat failed, and no usable token is cached.
    ///   Returned within [`load_timeout`](crate::user::UserTokensBuilder::load_timeout), by default
    ///   5 seconds.
    pub async fn get(&self, user: &UserId) -> Result<UserToken, Error> {
        self.0.provider.get(user.as_str()).await.map(UserToken::new)
    }

    /// Returns a usable token of a user who has just logged in, perhaps in another process. Works
    /// like [`get`](Self::get), but ignores a cached result that the user has no tokens.
    pub(crate) async fn get_after_login(&self, user: &str) -> Result<UserToken, Error> {
        self.0
            .provider
            .get_after_login(user)
            .await
            .map(UserToken::new)
    }

    /// Returns a usable token like [`get`](Self::get), without a second look into the cache. The
    /// layer calls this method after [`cached_by_id`](Self::cached_by_id) has returned `None`.
    pub(crate) async fn get_uncached(&self, user: Box<str>) -> Result<UserToken, Error> {
        self.0.provider.get_uncached(user).await.map(UserToken::new)
    }

    /// Returns the user's token if it is in memory, fresh, and confirmed by the store within
    /// [`cache_ttl`](crate::user::UserTokensBuilder::cache_ttl). Never waits.
    #[inline]
    pub fn cached(&self, user: &UserId) -> Option<UserToken> {
        self.cached_by_id(user.as_str())
    }

    /// Does the same as [`cached`](Self::cached), for the layer, which has the id only as text.
    #[inline]
    pub(crate) fn cached_by_id(&self, user: &str) -> Option<UserToken> {
        self.0.provider.cached(user).map(UserToken::new)
    }

    /// Stores the tokens that WeChat issued at a login, and replaces the user's earlier tokens. The
    /// result of a renewal that began before the login is discarded.
    ///
    /// The write continues if the caller stops waiting.
    ///
    /// # Errors
    /// - [`ErrorKind::StoreUnavailable`]: the store did not confirm the write.
    /// - [`ErrorKind::BadRequest`]: the response belongs to the virtual user of a snapshot page.
    ///   Only [`Login`](crate::Login) stores such tokens, under separate keys, until they expire.
    pub async fn store(
        &self,
        user: &UserId,
        response: &UserTokenResponse,
    ) -> Result<UserToken, Error> {
        if response.snapshot != self.is_for_snapshots() {
            let message = "a snapshot user is virtual and is not kept in the store";
            return Err(Error::new(ErrorKind::BadRequest, message));
        }
        let now = self.clock().now();
        match self.store_login(user, response, now, false).await? {
            LoginWrite::Stored(token) => Ok(token),
            // Only a late write gives way to later tokens.
            LoginWrite::Superseded => self.get(user).await,
        }
    }

    /// Reports that WeChat rejected a call with the token `invalid` (40001, 40014, 42001), and
    /// returns the current token.
    ///
    /// The token is renewed only if `invalid` is still the current one. A thousand reports of one
    /// token cause one renewal.
    ///
    /// # Errors
    /// Returns the errors of [`get`](Self::get).
    pub async fn report_invalid(
        &self,
        user: &UserId,
        invalid: &AccessToken,
    ) -> Result<UserToken, Error> {
        self.0
            .provider
            .report_invalid(user.as_str(), invalid)
            .await
            .map(UserToken::new)
    }

    /// Runs a call with the user's token. If WeChat rejects the token, this method reports the
    /// token and runs the call once more with the next token. It never runs the call a third time.
    ///
    /// # Errors
    /// The errors of [`get`](Self::get), converted into the error type of the call, and the errors
    /// of the call itself.
    ///
    /// ```
    /// use tower_wechat::client::{Language, UserInfo};
    /// use tower_wechat::{Error, UserId, UserTokens};
    ///
    /// async fn nickname(users: &UserTokens, user: &UserId) -> Result<String, Error> {
    ///     let info: UserInfo = users
    ///         .with_token(user, |token| async move {
    ///             let openid = token.openid().unwrap_or(token.user_id().as_str());
    ///             users.wechat().user_info(token.access_token(), openid, Language::ZhCn).await
    ///         })
    ///         .await?;
    ///     Ok(info.nickname)
    /// }
    /// ```
    pub async fn with_token<T, E, F, Fut>(&self, user: &UserId, mut call: F) -> Result<T, E>
    where
        F: FnMut(UserToken) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: InvalidToken + From<Error>,
    {
        let call = |entry| call(UserToken::new(entry));
        self.0.provider.with_credential(user.as_str(), call).await
    }

    /// Returns the user's nickname, avatar and the other fields of `sns/userinfo`. The user must
    /// have granted the scope `snsapi_userinfo`.
    ///
    /// Each process caches a profile for ten minutes. If WeChat rejects the token, the profile is
    /// requested once more with the next token.
    ///
    /// # Errors
    /// The errors of [`get`](Self::get) and of [`WechatClient::user_info`].
    /// [`ErrorKind::LoginRequired`] also means that the user has not granted the scope (48001).
    pub async fn profile(&self, user: &UserId) -> Result<Arc<UserInfo>, Error> {
        let timeout = self.0.provider.config().load_timeout;
        let fetch = async || {
            self.with_token(user, async |token| {
                // A record of another service may lack the openid. The user id is the openid then.
                let openid = token.openid().unwrap_or(token.user_id_text());
                let wechat = self.wechat();
                wechat
                    .user_info(token.access_token(), openid, Language::ZhCn)
                    .await
            })
            .await
        };
        self.0
            .profiles
            .get_or_fetch(user.as_str(), fetch, timeout)
            .await
    }

    /// Logs the user out everywhere: deletes the user's tokens in memory and in the store, and
    /// revokes all sessions of the user ([`SessionCookie`](crate::SessionCookie)).
    ///
    /// A running renewal does not restore the tokens. A later login creates a new session; the
    /// revoked sessions and their copies stay invalid.
    ///
    /// The deletion continues if the caller stops waiting.
    ///
    /// # Errors
    /// [`ErrorKind::StoreUnavailable`]: the store did not confirm the deletion.
    pub async fn revoke(&self, user: &UserId) -> Result<(), Error> {
        self.0.profiles.remove(user.as_str());
        let (provider, user) = (self.0.provider.clone(), user.clone());
        let store = Arc::clone(&self.0.store);
        let session_lifetime = self.max_session_lifetime();
        let work = async move {
            // Write the time of the logout before the deletion. A login right after the deletion
            // must find this time, because the login stores the time in its record.
            let (name, now) = (
                provider.credential_key(user.as_str()),
                provider.clock().now(),
            );
            store.set_revoked_at(&name, now, session_lifetime).await?;
            provider.revoke(user.as_str()).await
        };
        self.0.provider.run_to_completion(work).await
    }

    /// Returns the time for which the store must keep the time of a logout: the maximum lifetime of
    /// these users' sessions.
    fn max_session_lifetime(&self) -> Duration {
        match self.is_for_snapshots() {
            true => SNAPSHOT_SESSION_LIFETIME,
            false => longest_session_lifetime(),
        }
    }

    /// Returns the scope that the user has granted, as stored. The stored tokens may have expired.
    pub(crate) async fn granted_scope(&self, user: &str) -> Result<GrantedScope, Error> {
        let record = self.0.provider.load_record(user).await?;
        Ok(match record.details.scope {
            _ if record.is_empty() => GrantedScope::NoToken,
            Some(scope) => GrantedScope::Known(scope),
            None => GrantedScope::Unknown,
        })
    }

    /// Checks that the store can be read and written.
    ///
    /// # Errors
    /// [`ErrorKind::StoreUnavailable`]: the store cannot be read or written.
    pub async fn health(&self) -> Result<(), Error> {
        self.0.provider.ping().await
    }

    /// Returns the number of users whose tokens are in the memory of this process.
    pub fn cached_users(&self) -> usize {
        self.0.provider.cached_count()
    }

    /// Waits up to `timeout` for running renewals and writes, so that new tokens reach the store
    /// before the process ends. Returns `true` if all of them have ended.
    ///
    /// Call this method after the server has stopped accepting requests.
    pub async fn shutdown(&self, timeout: Duration) -> bool {
        self.0.provider.shutdown(timeout).await
    }

    /// Returns the tokens of virtual users if `snapshot` is `true`, else those of real users.
    #[inline]
    pub(crate) fn for_user(&self, snapshot: bool) -> &UserTokens {
        match &self.0.snapshot_users {
            Some(snapshot_users) if snapshot => snapshot_users,
            _ => self,
        }
    }

    /// Returns `true` if this instance holds the tokens of virtual users of snapshot pages.
    pub(crate) fn is_for_snapshots(&self) -> bool {
        self.0.provider.kind() == CredentialKind::SnapshotUser
    }

    /// Spawns work that must continue after the request that started it.
    /// [`shutdown`](Self::shutdown) waits for the work.
    pub(crate) fn spawn<F>(&self, work: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.0.provider.spawn(work)
    }

    /// Releases the lease of a login code in the background. Used when the store did not reply to
    /// the request for the lease, and so may have granted it.
    pub(crate) fn release_code(&self, code: LoginCodeKey, owner: LeaseOwner, lease: Duration) {
        self.0
            .provider
            .release_code_in_background(self.0.store.clone(), code, owner, lease);
    }

    /// Returns the store that holds the tokens.
    pub(crate) fn token_store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    pub(crate) fn clock(&self) -> &Clock {
        self.0.provider.clock()
    }
}

impl fmt::Debug for UserTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UserTokens").field(&self.0.provider).finish()
    }
}
