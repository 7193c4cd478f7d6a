//! Hooks of the authorize pages that return no `Result`, or an error that is not `Send`, and a platform
//! in place of its registry. The notes name each remedy.
//~ a hook of `on_authorized` returns `Result<(), E>`, not `()`
//~ end the hook with `Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())`
//~ `Box<dyn Error>` alone does not
//~ for the accounts of a `Platform`, pass `platform.accounts(|account| Ok(account.login(..)))`

use tower_wechat::layer::AccountsBuilder;
use tower_wechat::platform::{AuthorizePages, AuthorizedAccount, Platform};

pub fn infallible(pages: AuthorizePages) -> AuthorizePages {
    pages.on_authorized(async |account: AuthorizedAccount| println!("{}", account.app_id()))
}

pub fn error_is_not_send(pages: AuthorizePages) -> AuthorizePages {
    pages.on_authorized(async |_| Ok::<_, Box<dyn std::error::Error>>(()))
}

pub fn no_registry(builder: AccountsBuilder, platform: Platform) -> AccountsBuilder {
    builder.registry(platform)
}
