//! Tests of `tower_wechat::testing`, which applications use in their own tests.

mod browser;
mod users;
