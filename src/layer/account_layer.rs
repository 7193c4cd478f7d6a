//! A layer as it serves one account, and what the layer needs of that account.

use std::sync::Arc;

use super::WechatAccount;
use super::settings::LayerSettings;
use crate::identity::Session;
use crate::login::LoginHandler;
use crate::users::UserTokens;

/// The handles of one account that a layer serves.
#[derive(Debug, Clone)]
pub(super) struct AccountParts {
    pub(super) users: UserTokens,
    /// The handle to the account's own token, which requests receive. `None` if the application has
    /// not set it.
    pub(super) account: Option<WechatAccount>,
    pub(super) login: Option<LoginHandler>,
}

impl AccountParts {
    /// Returns the tokens of the users to whom the user of this session belongs.
    #[inline]
    pub(super) fn users_for(&self, session: Session) -> &UserTokens {
        let website = match session.website {
            true => self.website_users(),
            false => None,
        };
        website.unwrap_or(&self.users).for_user(session.snapshot)
    }

    /// Returns `true` if the user of this session is the account's, or that of its website. A
    /// website's user has no meaning for a layer without that website.
    #[inline]
    pub(super) fn has_user_of(&self, session: Session) -> bool {
        !session.website || self.website_users().is_some()
    }

    /// Returns the users of the website app (网站应用) beside the account.
    pub(super) fn website_users(&self) -> Option<&UserTokens> {
        Some(self.login.as_ref()?.website()?.users())
    }
}

/// A layer as it serves the account of one request: the settings of the layer, and the parts of the
/// account.
#[derive(Debug)]
pub(super) struct AccountLayer<I, R> {
    pub(super) settings: Arc<LayerSettings<I, R>>,
    pub(super) parts: Arc<AccountParts>,
}

impl<I, R> Clone for AccountLayer<I, R> {
    fn clone(&self) -> Self {
        Self {
            settings: Arc::clone(&self.settings),
            parts: Arc::clone(&self.parts),
        }
    }
}
