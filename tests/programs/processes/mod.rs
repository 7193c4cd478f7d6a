//! Tests of the demo as several processes on one real Redis: killed, stopped, cut off, set up
//! wrongly, and called by its contract.

mod account;
mod astray;
mod contract;
mod crowds;
mod deaths;
mod forward_proxy;
mod garbage;
mod identities;
mod jssdk;
mod news;
mod redis_away;
mod sealing;
mod sessions;
mod start_up;
mod tls;
mod userinfo;
mod wechat_down;
