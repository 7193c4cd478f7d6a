//! Scopes of web authorization.

use crate::credential::{SCOPE_BASE, SCOPE_LOGIN, SCOPE_USER_INFO};

/// Scope that WeChat asks a user to grant, as WeChat's guide to web authorization (网页授权) defines
/// it.
///
/// ```
/// use tower_wechat::Scope;
///
/// assert_eq!(Scope::UserInfo.as_str(), "snsapi_userinfo");
/// assert!(Scope::Base.is_granted_by("snsapi_base"));
/// // The profile includes the user's identity.
/// assert!(Scope::Base.is_granted_by("snsapi_userinfo"));
/// assert!(!Scope::UserInfo.is_granted_by("snsapi_base"));
/// // Users of a website app (网站应用) grant `snsapi_login`, which includes the profile.
/// assert!(Scope::UserInfo.is_granted_by("snsapi_login"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Scope {
    /// `snsapi_base`: the user's openid. WeChat grants this scope without asking the user.
    Base,
    /// `snsapi_userinfo`: the user's openid, nickname and avatar. WeChat asks the user, except for
    /// a user who comes from the account's own chat or menu.
    #[default]
    UserInfo,
}

impl Scope {
    /// Returns WeChat's name of this scope.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Base => SCOPE_BASE,
            Self::UserInfo => SCOPE_USER_INFO,
        }
    }

    /// Returns the scope with this name of WeChat, or `None` for an unknown name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            SCOPE_BASE => Some(Self::Base),
            SCOPE_USER_INFO => Some(Self::UserInfo),
            _ => None,
        }
    }

    /// Returns the broader of two scopes.
    pub(crate) fn at_least(self, other: Self) -> Self {
        match (self, other) {
            (Self::Base, Self::Base) => Self::Base,
            (Self::UserInfo, _) | (_, Self::UserInfo) => Self::UserInfo,
        }
    }

    /// Returns `true` if a granted scope, comma-separated as WeChat writes it, covers this scope.
    /// `snsapi_login`, which a website app (网站应用) asks for, covers every scope.
    pub fn is_granted_by(self, granted: &str) -> bool {
        granted.split(',').any(|name| {
            let name = name.trim();
            let covers_all = [SCOPE_USER_INFO, SCOPE_LOGIN].contains(&name);
            match self {
                Self::Base => covers_all || name == SCOPE_BASE,
                Self::UserInfo => covers_all,
            }
        })
    }
}
