//! Lua scripts, each of which is one atomic step.
//!
//! [`steps`] generates the scripts of a slot for each number of keys. [`fixed`] contains the
//! scripts with one or two keys. [`batch`] runs a step of several credentials, on one server.
//!
//! Some managed Clusters inspect the text of a script before they run it. Except in [`batch`], each
//! call in a script therefore contains its command and its key literally (`KEYS[1]`, `KEYS[2]`
//! …), and the scripts use `KEYS` for nothing else.
//!
//! All keys of a call are in one slot of a Cluster. [`locations`](super::locations) ensures this.

mod batch;
mod cache;
mod call;
mod fixed;
mod reply;
mod script;
mod steps;

pub(super) use self::batch::BatchedReply;
pub(super) use self::call::{Invocation, ScriptCall};
#[cfg(feature = "platform")]
pub(super) use self::fixed::SET_LISTED_AT;
pub(super) use self::fixed::{
    ACQUIRE_CODE, BIND_CODE, CHECK, DELETE_UNCHANGED_FIELDS, FINISH_CODE, RELEASE_CODE,
    SET_REVOKED_AT, SUSPEND_CODE, TRY_CONSUME,
};
pub(super) use self::reply::ScriptReply;
pub(super) use self::steps::{PublishMode, Step};
