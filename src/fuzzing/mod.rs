//! Entry points of the fuzzers. Each entry point takes bytes that another party could send, and
//! checks properties that must hold.
//!
//! `cargo fuzz` compiles the entry points (`--cfg fuzzing`), and so do this crate's tests. The
//! tests replay the corpora and a bounded number of mutations on the stable toolchain. The API does
//! not include the entry points.

mod bearer;
mod fixtures;
mod login;
#[cfg(feature = "platform")]
mod push;
#[cfg(feature = "redis")]
mod redis_value;
mod session;
mod user_header;
mod wechat_reply;

pub use bearer::bearer;
pub use login::login;
#[cfg(feature = "platform")]
pub use push::push;
#[cfg(feature = "redis")]
pub use redis_value::redis_value;
pub use session::session;
pub use user_header::user_header;
pub use wechat_reply::wechat_reply;

/// An entry point: the name of its corpus, and the function that takes the bytes.
pub type FuzzTarget = (&'static str, fn(&[u8]));

/// All entry points, which the tests run one after another.
pub const TARGETS: &[FuzzTarget] = &[
    ("bearer", bearer),
    ("login", login),
    #[cfg(feature = "platform")]
    ("push", push),
    #[cfg(feature = "redis")]
    ("redis_value", redis_value),
    ("session", session),
    ("user_header", user_header),
    ("wechat_reply", wechat_reply),
];

#[cfg(test)]
mod tests;
