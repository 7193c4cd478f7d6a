//! Tests with the code of another library for third-party platforms.

use std::process::Command;

use serde_json::{Value, json};

use super::harness::{COMPONENT, KEY, SHOP, TOKEN};
use crate::{
    account::interop::{installed_wechatpy, run, script},
    simulator::harness::Harness,
};

/// wechatpy decrypts pushes, lets an account authorize it, renews its tokens, and logs a user in.
async fn wechatpy_is_a_platform(version: &str) {
    let Some(packages) = installed_wechatpy(version) else {
        return;
    };
    let harness = Harness::start().await;
    let shop = harness.sim.add_account(SHOP, "secret-of-the-shop");
    let mut python = Command::new(packages.join("bin/python"));
    python.arg(script("wechatpy_component.py"));
    python.args([harness.sim.url(), COMPONENT, "a-secret", TOKEN, KEY, SHOP]);
    let said = tokio::task::spawn_blocking(move || run(&mut python)).await;
    let said = said.unwrap().unwrap_or_else(|why| panic!("{why}"));
    let reply: Value = serde_json::from_str(&said).unwrap();
    let user = "oSimulatedUser_0000000000001";
    assert_eq!(reply["openid"], shop.openid_of(user));
    let seen = reply["seen"].as_array().unwrap();
    for kind in [
        "component_verify_ticket",
        "authorized",
        "text",
        "unauthorized",
    ] {
        assert!(seen.contains(&json!(kind)), "{kind}: {seen:?}");
    }
    let exchanges = "/sns/oauth2/component/access_token";
    assert_eq!(harness.sim.calls_to(exchanges), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wechatpy_1_is_a_platform() {
    wechatpy_is_a_platform("1.8.18").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wechatpy_2_is_a_platform() {
    wechatpy_is_a_platform("2.0.0a26").await;
}
