//! The third-party platform (第三方平台): accounts (公众号) that their owners have authorized to it.

mod authorizations;
mod authorize;
mod authorizer;
mod builder;
mod changes;
mod component_source;
mod component_token;
mod event;
mod events;
mod exchange;
mod followed;
mod handle;
mod lists;
mod outcome;
pub(crate) mod push;
mod pushes;
mod running_list;
mod state;
mod ticket;
mod upkeep;

pub(crate) use self::authorizations::AccountStatus;
pub use self::authorize::{AuthorizePages, AuthorizedAccount, Customer};
pub(crate) use self::authorizer::not_authorized;
pub use self::builder::PlatformBuilder;
pub(crate) use self::changes::ChangeQueue;
#[cfg(any(test, fuzzing))]
pub(crate) use self::event::PlatformEvent;
pub use self::handle::Platform;
pub(crate) use self::outcome::pre_auth_code_hash;
pub use self::push::{
    NoMessages, PlatformPush, PushField, PushFields, PushKeys, PushLayer, PushService,
};
pub(crate) use self::state::PlatformState;
