//! The side of WeChat towards a third-party platform (第三方平台): the accounts that have authorized it, its
//! credentials, and the encrypted pushes.

mod authorizer;
mod calls;
mod cipher;
mod compose;
mod delivery;
mod handle;
mod message;
mod push;
mod sender;
mod state;

pub(super) use self::{
    authorizer::AuthorizerGrant,
    cipher::check_aes_key,
    delivery::deliver,
    handle::push_and_wait,
    push::PushKind,
    sender::send_pushes,
    state::{CustomMessage, PlatformState, Platforms, PushKeys},
};
pub use self::{delivery::PushReply, handle::SimulatedPlatform, push::PlatformPush};
