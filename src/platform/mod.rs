//! The third-party platform (第三方平台): accounts (公众号) that their owners have authorized to it.

#[allow(dead_code)]
mod event;
pub(crate) mod push;

pub use self::push::{
    NoMessages, PlatformPush, PushField, PushFields, PushKeys, PushLayer, PushService,
};
