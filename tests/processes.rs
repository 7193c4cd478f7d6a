//! The demo as real processes: several of them on one real Redis, killed, stopped, cut off, set up
//! wrongly, and asked what its contract says.

#[path = "processes/account.rs"]
mod account;
#[path = "processes/astray.rs"]
mod astray;
#[path = "login/client.rs"]
#[allow(dead_code, unreachable_pub)]
mod client;
#[path = "processes/contract.rs"]
mod contract;
#[path = "processes/crowds.rs"]
mod crowds;
#[path = "processes/deaths.rs"]
mod deaths;
#[path = "processes/forward_proxy.rs"]
mod forward_proxy;
#[path = "processes/garbage.rs"]
mod garbage;
#[path = "processes/identities.rs"]
mod identities;
#[path = "processes/jssdk.rs"]
mod jssdk;
#[path = "processes/news.rs"]
mod news;
#[path = "processes/redis_away.rs"]
mod redis_away;
#[path = "processes/sealing.rs"]
mod sealing;
#[path = "processes/sessions.rs"]
mod sessions;
#[path = "processes/start_up.rs"]
mod start_up;
mod support;
#[path = "processes/tls.rs"]
mod tls;
#[path = "processes/userinfo.rs"]
mod userinfo;
#[path = "processes/wechat_down.rs"]
mod wechat_down;
