//! [`UserTokens`]: the access tokens of an account's users.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::profile::ProfileCache;
use super::sessions::{SNAPSHOT_SESSION_LIFETIME, longest_session_lifetime};
use super::source::login_record;
use super::token::{GrantedScope, UserToken};
use crate::clock::Clock;
use crate::credential::{AccessToken, AppId, UserId};
use crate::error::{Error, ErrorKind, InvalidToken};
use crate::provider::CredentialProvider;
use crate::store::{CredentialKind, LeaseOwner, LoginCodeKey, Store};
use crate::wechat::{Language, UserInfo, UserTokenResponse, WechatClient};

/// How often a login is stored again because its user has logged out everywhere meanwhile.
const MAX_LOGIN_RETRIES: usize = 8;

/// The access tokens of an account's users: kept in a store that all processes share, renewed in
/// time and by one process only, held in memory in between.
///
/// Clones are cheap and share everything.
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
/// Without a layer, in jobs and other frameworks:
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
/// #   let refused = true;
///     // … a call of WeChat's API with it. If the token is refused:
///     if refused {
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

/// Behind one `Arc`: every request that is let through clones it once.
pub(super) struct Inner {
    pub(super) provider: CredentialProvider,
    pub(super) store: Arc<dyn Store>,
    pub(super) wechat: WechatClient,
    pub(super) profiles: ProfileCache,
    /// The virtual users of snapshot pages (快照页), who are kept apart and not for long. They have
    /// none of their own.
    pub(super) snapshot_users: Option<UserTokens>,
}

impl UserTokens {
    /// The account whose users these are.
    pub fn app_id(&self) -> &AppId {
        self.0.provider.app()
    }

    /// The client that new tokens come from.
    pub fn wechat(&self) -> &WechatClient {
        &self.0.wechat
    }

    /// A usable token of the user: from memory, else from the store, renewed if it must be.
    ///
    /// A token that is due for renewal but not expired is handed out at once and renewed in the
    /// background (R4). The renewal goes on when the caller stops waiting (R3).
    ///
    /// # Errors
    /// - [`ErrorKind::LoginRequired`]: the user has none, and none can be had without them.
    /// - [`ErrorKind::StoreUnavailable`], [`ErrorKind::WechatUnavailable`],
    ///   [`ErrorKind::WechatConfig`]: none is at hand, and the store or WeChat fails. At the
    ///   latest after the time set by [`UserTokensBuilder::load_timeout`] (5 seconds).
    pub async fn get(&self, user: &UserId) -> Result<UserToken, Error> {
        self.0.provider.get(user.as_str()).await.map(UserToken::new)
    }

    /// As [`get`](Self::get), past what this process remembers of users without tokens.
    pub(crate) async fn get_after_login(&self, user: &str) -> Result<UserToken, Error> {
        self.0
            .provider
            .get_after_login(user)
            .await
            .map(UserToken::new)
    }

    /// As [`get`](Self::get), for somebody whom [`cached`](Self::cached) has just been asked for.
    pub(crate) async fn get_uncached(&self, user: Box<str>) -> Result<UserToken, Error> {
        self.0.provider.get_uncached(user).await.map(UserToken::new)
    }

    /// The user's token, if this process holds one that needs no thought. Never waits.
    #[inline]
    pub fn cached(&self, user: &UserId) -> Option<UserToken> {
        self.cached_by_id(user.as_str())
    }

    /// Returns the same as [`cached`](Self::cached), for an id that an identity source has checked.
    #[inline]
    pub(crate) fn cached_by_id(&self, user: &str) -> Option<UserToken> {
        self.0.provider.cached(user).map(UserToken::new)
    }

    /// Stores what WeChat granted at a login, whatever was there before: a login beats every
    /// renewal that began before it (R2). Once begun it runs to its end, also when the caller stops
    /// waiting.
    ///
    /// # Errors
    /// [`ErrorKind::StoreUnavailable`] when the store does not take it, and
    /// [`ErrorKind::BadRequest`] for a snapshot user, who is virtual and must not be kept; the
    /// layer's own [`Login`](crate::Login) keeps them elsewhere, no longer than their token lives.
    pub async fn store(
        &self,
        user: &UserId,
        response: &UserTokenResponse,
    ) -> Result<UserToken, Error> {
        if response.snapshot != self.is_for_snapshots() {
            let message = "a snapshot user is virtual and is not kept in the store";
            return Err(Error::new(ErrorKind::BadRequest, message));
        }
        let settings = self.0.provider.config();
        let mut record = login_record(response, self.clock().now(), settings.margin);
        if response.snapshot {
            // Nobody renews the token of somebody who is gone when the page closes.
            record.refresh = None;
        }
        self.0.profiles.remove(user.as_str());
        let (provider, user) = (self.0.provider.clone(), user.clone());
        let store = Arc::clone(&self.0.store);
        let work = async move {
            let name = provider.credential_key(user.as_str());
            let mut revoked_at = store.revoked_at(&name).await?;
            for _ in 0..MAX_LOGIN_RETRIES {
                record.details.sessions_valid_from = revoked_at;
                let held = provider.store_record(user.as_str(), record.clone()).await?;
                // Asked again once the pair is there: a logout that comes after this one deletes
                // the pair, and one that came before is in it. Otherwise sessions of before the
                // logout would live again by a pair that does not know of it.
                let latest = store.revoked_at(&name).await?;
                if latest == revoked_at {
                    return Ok(UserToken::new(held));
                }
                revoked_at = latest;
            }
            let message = "the user logs out everywhere again and again while they log in";
            Err(Error::store_unavailable(message))
        };
        self.0.provider.run_to_completion(work).await
    }

    /// Reports that WeChat refused a call (40001, 40014, 42001) that was made with `refused`, and
    /// answers with the current token.
    ///
    /// The token is renewed only if `refused` is still the current one: a thousand reports of one
    /// token cause one renewal (R6).
    ///
    /// # Errors
    /// As [`get`](Self::get).
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

    /// Runs a call with the user's token. If WeChat refuses the token, it is reported, and the
    /// call runs once more with its successor; never a third time (R6).
    ///
    /// # Errors
    /// Those of [`get`](Self::get), turned into the call's error type, and the call's own.
    ///
    /// ```
    /// use tower_wechat::client::{Language, UserInfo};
    /// use tower_wechat::{Error, UserId, UserTokens};
    ///
    /// async fn nickname(users: &UserTokens, user: &UserId) -> Result<String, Error> {
    ///     let info: UserInfo = users
    ///         .with_token(user, |token| async move {
    ///             let openid = token.openid().unwrap_or(token.user_id());
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
        let call = |held| call(UserToken::new(held));
        self.0.provider.with_credential(user.as_str(), call).await
    }

    /// The user's nickname, avatar and what else `sns/userinfo` tells, for tokens of the scope
    /// `snsapi_userinfo`. Fetched once, with a successor if the token is refused, and then
    /// remembered by this process for ten minutes.
    ///
    /// # Errors
    /// Those of [`get`](Self::get) and of [`WechatClient::user_info`]:
    /// [`ErrorKind::LoginRequired`] also where the user has not granted that scope (48001).
    pub async fn profile(&self, user: &UserId) -> Result<Arc<UserInfo>, Error> {
        let timeout = self.0.provider.config().load_timeout;
        let fetch = async || {
            self.with_token(user, async |token| {
                // A pair that another service has stored may lack the openid: it is the id then.
                let openid = token.openid().unwrap_or(token.user_id());
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

    /// Deletes the user's tokens, here and in the store. A renewal under way does not bring them
    /// back. The sessions that the user has ([`SessionCookie`](crate::SessionCookie)) end for
    /// good, with all copies of them: they lead to a login, and do not live again after it.
    ///
    /// Once begun it runs to its end, also when the caller stops waiting.
    ///
    /// # Errors
    /// [`ErrorKind::StoreUnavailable`] when the store does not take it.
    pub async fn revoke(&self, user: &UserId) -> Result<(), Error> {
        self.0.profiles.remove(user.as_str());
        let (provider, user) = (self.0.provider.clone(), user.clone());
        let store = Arc::clone(&self.0.store);
        let session_lifetime = self.max_session_lifetime();
        let work = async move {
            // Before the tokens go: whoever logs in as soon as they are gone must find it.
            let (name, now) = (
                provider.credential_key(user.as_str()),
                provider.clock().now(),
            );
            store.set_revoked_at(&name, now, session_lifetime).await?;
            provider.revoke(user.as_str()).await
        };
        self.0.provider.run_to_completion(work).await
    }

    /// How long a session of these users can outlive the logout that ends it.
    fn max_session_lifetime(&self) -> Duration {
        match self.is_for_snapshots() {
            true => SNAPSHOT_SESSION_LIFETIME,
            false => longest_session_lifetime(),
        }
    }

    /// Returns what the user has granted, as far as the store knows, whether the pair is usable or
    /// not.
    pub(crate) async fn granted_scope(&self, user: &str) -> Result<GrantedScope, Error> {
        let record = self.0.provider.load_record(user).await?;
        Ok(match record.details.scope {
            _ if record.is_empty() => GrantedScope::NoToken,
            Some(scope) => GrantedScope::Known(scope),
            None => GrantedScope::Unknown,
        })
    }

    /// Returns whether users' tokens can be read and written in the store now.
    ///
    /// # Errors
    /// [`ErrorKind::StoreUnavailable`] when they cannot.
    pub async fn health(&self) -> Result<(), Error> {
        self.0.provider.ping().await
    }

    /// How many users' tokens this process holds in memory.
    pub fn cached_users(&self) -> usize {
        self.0.provider.cached_count()
    }

    /// Waits for the renewals that are under way, for at most `patience`, so that what WeChat has
    /// granted reaches the store before the process ends (R3). Call it after the server has
    /// stopped taking requests. Answers whether all of them have ended.
    pub async fn shutdown(&self, timeout: Duration) -> bool {
        self.0.provider.shutdown(timeout).await
    }

    /// Returns the tokens of real users, or those of snapshot pages' virtual users.
    #[inline]
    pub(crate) fn for_user(&self, snapshot: bool) -> &UserTokens {
        match &self.0.snapshot_users {
            Some(snapshot_users) if snapshot => snapshot_users,
            _ => self,
        }
    }

    pub(crate) fn is_for_snapshots(&self) -> bool {
        self.0.provider.kind() == CredentialKind::SnapshotUser
    }

    /// Runs work that must not end with the request that began it (R3).
    pub(crate) fn spawn<F>(&self, work: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.0.provider.spawn(work)
    }

    /// Gives back the right to exchange a code, whose claim got no answer.
    pub(crate) fn release_code(&self, code: LoginCodeKey, owner: LeaseOwner, lease: Duration) {
        self.0
            .provider
            .release_code_in_background(self.0.store.clone(), code, owner, lease);
    }

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
