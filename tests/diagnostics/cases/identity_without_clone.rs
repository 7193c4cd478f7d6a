//! An identity and a rejection type that are not `Clone`. This compiles.

use axum::Router;
use tower_wechat::identity::{Identify, Identity};
use tower_wechat::layer::{JsonRejection, Reject};
use tower_wechat::{Policy, Rejection, RequestHead, Scope, UserTokens, WechatLayer};

struct Certificates(std::sync::Mutex<Vec<String>>);

impl Identify for Certificates {
    fn identify<'a>(&self, _: &RequestHead<'a>) -> Identity<'a> {
        self.0.lock().unwrap().first().cloned().map_or(Identity::Anonymous, Identity::user)
    }
}

struct Form(std::sync::Mutex<u64>);

impl<B: From<bytes::Bytes>> Reject<B> for Form {
    fn reject(&self, rejection: &Rejection, head: &RequestHead<'_>) -> http::Response<B> {
        *self.0.lock().unwrap() += 1;
        JsonRejection::new().reject(rejection, head)
    }
}

pub fn app(users: UserTokens) -> Router {
    let layer = WechatLayer::new(users)
        .identity(Certificates(Default::default()))
        .reject(Form(Default::default()))
        .policy(Policy::Optional)
        .require_scope(Scope::Base);
    Router::new().layer(layer.clone().policy(Policy::Required)).layer(layer)
}
