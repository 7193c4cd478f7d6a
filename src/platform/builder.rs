//! The builder of a platform.

use std::sync::Arc;

use super::handle::Platform;
use super::push::PushKeys;
use super::state::{PlatformSettings, PlatformState};
use crate::clock::Clock;
use crate::error::Error;
use crate::store::{ExternalPlatformReader, Store};
use crate::wechat::{WechatClient, parse_base_url};

/// Default base URL of the page on which the owner of an account authorizes the platform at a computer.
const MP_URL: &str = "https://mp.weixin.qq.com";

/// Builder of a [`Platform`].
///
/// ```
/// use tower_wechat::platform::{Platform, PushKeys};
/// use tower_wechat::{MemoryStore, WechatClient};
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// let component = WechatClient::new("wx00000000000000c0", "component-secret")?;
/// let keys = PushKeys::new(["token"], ["abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"])?;
/// let platform = Platform::builder(component, MemoryStore::new())
///     .push_keys(keys)
///     .build()?;
/// assert_eq!(platform.app_id().as_str(), "wx00000000000000c0");
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct PlatformBuilder {
    component: WechatClient,
    store: Arc<dyn Store>,
    push_keys: Option<PushKeys>,
    mp_url: String,
    followed: Option<Arc<dyn ExternalPlatformReader>>,
    clock: Clock,
}

impl Platform {
    /// Returns a builder of a platform. `component` is the client of the platform's own AppID
    /// (`component_appid`) and AppSecret. Clients of the accounts share its hosts and connections.
    pub fn builder(component: WechatClient, store: impl Store) -> PlatformBuilder {
        PlatformBuilder::new(component, Arc::new(store))
    }
}

impl PlatformBuilder {
    pub(super) fn new(component: WechatClient, store: Arc<dyn Store>) -> Self {
        Self {
            component,
            store,
            push_keys: None,
            mp_url: MP_URL.to_owned(),
            followed: None,
            clock: Clock::system(),
        }
    }

    /// Sets the keys with which pushes are verified and decrypted. Default: none, and this process
    /// takes no pushes.
    pub fn push_keys(mut self, keys: PushKeys) -> Self {
        self.push_keys = Some(keys);
        self
    }

    /// Sets the base URL of the page on which the owner of an account authorizes the platform at a
    /// computer. Default: `https://mp.weixin.qq.com`.
    pub fn mp_url(mut self, url: impl Into<String>) -> Self {
        self.mp_url = url.into();
        self
    }

    /// Makes this process follow a platform that another system keeps in `redis`, such as a service
    /// with WxJava. Default: this process keeps the platform itself.
    ///
    /// The process reads the component token and the tokens of the accounts from the keys of that
    /// system. It never fetches them, and writes none of those keys. An account is authorized while
    /// the other system has its refresh token. Users log in with the component token of the other
    /// system, and their tokens are in the store of this platform.
    ///
    /// WeChat's pushes, the authorization of accounts and [`reconcile`](Platform::reconcile) are
    /// left to the other system. The AppSecret of the platform's client is not used.
    ///
    /// ```
    /// use tower_wechat::platform::Platform;
    /// use tower_wechat::redis::ExternalPlatform;
    /// use tower_wechat::{Error, RedisStore, WechatClient};
    ///
    /// fn platform(component: WechatClient, store: RedisStore) -> Result<Platform, Error> {
    ///     let java = ExternalPlatform::wx_java().prefix("wx:open");
    ///     Platform::builder(component, store.clone()).follow(java, store).build()
    /// }
    /// ```
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    pub fn follow(
        mut self,
        platform: crate::store::ExternalPlatform,
        redis: crate::store::RedisStore,
    ) -> Self {
        let component = self.component.app_id().clone();
        let followed = crate::store::FollowedPlatform::new(redis, platform, component);
        self.followed = Some(Arc::new(followed));
        self
    }

    /// Sets the clock for the lifetimes of tokens. Default: the system clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Creates the [`Platform`], without a request to the store or to WeChat.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): the accounts would share a name in
    /// the store, because the names of its hashes do not contain the AppID
    /// (`RedisNames::with_appid` adds it), or the URL of [`mp_url`](Self::mp_url) is invalid, or
    /// the process follows another system and has keys of pushes.
    pub fn build(self) -> Result<Platform, Error> {
        self.store.check_several_accounts()?;
        let mp_url = parse_base_url("the URL of mp_url", &self.mp_url)?;
        if self.followed.is_some() && self.push_keys.is_some() {
            return Err(Error::configuration(
                "a process that follows the platform of another system takes no pushes: remove the \
                 push keys, and let WeChat push to the other system",
            ));
        }
        let settings = PlatformSettings {
            push_keys: self.push_keys,
            followed: self.followed,
            mp_url: mp_url.as_str().to_owned(),
        };
        let state = PlatformState::new(self.component, self.store, self.clock, settings);
        state.start_upkeep();
        Ok(Platform(state))
    }
}
