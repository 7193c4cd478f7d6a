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
        self.users.for_user(session.snapshot)
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
