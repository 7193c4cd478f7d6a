//! The side of WeChat towards a third-party platform (第三方平台): the accounts that have authorized it, its
//! credentials, and the encrypted pushes.

mod authorizer;
mod calls;
mod cipher;
mod compose;
mod delivery;
mod handle;
mod message;
mod prepared_push;
mod push;
mod push_queue;
mod sender;
mod state;

pub(super) use self::{
    authorizer::AuthorizerGrant,
    cipher::check_aes_key,
    delivery::deliver,
    handle::push_and_wait,
    prepared_push::PushKeys,
    push::PushKind,
    sender::send_pushes,
    state::{CustomMessage, PlatformState, Platforms},
};
pub use self::{handle::SimulatedPlatform, prepared_push::PushReply, push::SimulatedPush};
