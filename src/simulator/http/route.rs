//! The code that all routes of WeChat's API share: the type of the state, the check of the method,
//! and the reply.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{Method, Uri},
    response::Response,
};
use serde::Serialize;

use super::{params::Params, reply};
use crate::simulator::{
    error_reply::WechatErrorReply,
    state::{SharedState, SimulatedWechat},
};

pub(super) type SharedSimulator = State<Arc<SharedState>>;

/// The prefix of the control routes. Control requests are not counted as calls, and faults do not
/// apply to them.
pub(super) const CONTROL_PREFIX: &str = "/_sim/";

/// Runs a call that must be a GET. Another method gets 43001. Holds the lock on the state during
/// the call.
pub(super) fn get<T, F>(shared: &SharedSimulator, method: &Method, uri: &Uri, call: F) -> Response
where
    T: Serialize,
    F: FnOnce(&mut SimulatedWechat, &Params, Duration) -> Result<T, WechatErrorReply>,
{
    run(shared, *method == Method::GET, 43001, uri, call)
}

/// Runs a call that must be a POST. Another method gets 43002. Holds the lock on the state during
/// the call.
pub(super) fn post<T, F>(shared: &SharedSimulator, method: &Method, uri: &Uri, call: F) -> Response
where
    T: Serialize,
    F: FnOnce(&mut SimulatedWechat, &Params, Duration) -> Result<T, WechatErrorReply>,
{
    run(shared, *method == Method::POST, 43002, uri, call)
}

fn run<T, F>(
    shared: &SharedSimulator,
    is_method_right: bool,
    method_errcode: i64,
    uri: &Uri,
    call: F,
) -> Response
where
    T: Serialize,
    F: FnOnce(&mut SimulatedWechat, &Params, Duration) -> Result<T, WechatErrorReply>,
{
    let mut wechat = shared.lock();
    let now = wechat.now();
    let result = if is_method_right {
        call(&mut wechat, &Params::from_query(uri), now)
    } else {
        Err(WechatErrorReply::new(method_errcode))
    };
    reply::api_response(uri.path(), result, now)
}
