//! What a user is asked to grant.

/// What a user is asked to grant, as WeChat's guide to web authorization (网页授权) names it.
///
/// ```
/// use tower_wechat::Scope;
///
/// assert_eq!(Scope::UserInfo.as_str(), "snsapi_userinfo");
/// assert!(Scope::Base.is_granted_by("snsapi_base"));
/// // Whoever may read the profile has told who they are as well.
/// assert!(Scope::Base.is_granted_by("snsapi_userinfo"));
/// assert!(!Scope::UserInfo.is_granted_by("snsapi_base"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Scope {
    /// `snsapi_base`: who the user is. Granted without a word.
    Base,
    /// `snsapi_userinfo`: nickname and avatar too. WeChat asks the user, unless they came from the
    /// account's own chat or menu.
    #[default]
    UserInfo,
}

impl Scope {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Base => "snsapi_base",
            Self::UserInfo => "snsapi_userinfo",
        }
    }

    /// The scope of this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Base, Self::UserInfo]
            .into_iter()
            .find(|scope| scope.as_str() == name)
    }

    /// The one of two that covers the other.
    pub(crate) fn at_least(self, other: Self) -> Self {
        match (self, other) {
            (Self::Base, Self::Base) => Self::Base,
            (Self::UserInfo, _) | (_, Self::UserInfo) => Self::UserInfo,
        }
    }

    /// Whether a granted scope, comma-separated as WeChat writes it, covers this one.
    pub fn is_granted_by(self, granted: &str) -> bool {
        granted.split(',').any(|one| {
            let one = one.trim();
            one == self.as_str() || (self == Self::Base && one == Self::UserInfo.as_str())
        })
    }
}
