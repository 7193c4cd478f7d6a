//! Tests of the demo as several processes on one real Redis: killed, stopped, cut off, set up
//! wrongly, and called by its contract.

mod account;
mod accounts;
mod contract;
mod forward_proxy;
mod identities;
mod interruptions;
mod invalidation;
mod jssdk;
mod misrouted_callbacks;
mod one_renewal;
mod platform;
mod redis_down;
mod sealing;
mod sessions;
mod start_up;
mod tls;
mod unreadable_values;
mod userinfo;
mod wechat_down;
