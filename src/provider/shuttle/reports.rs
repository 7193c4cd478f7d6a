//! Tests of reports: a caller reports that WeChat rejected its token.

use super::batched_store::Network;
use super::explore::{explore_networks, join_all};
use super::harness::{ID, spawn, with_harness};
use super::wechat::TokenAge;
use crate::error::{Error, ErrorKind};
use crate::provider::source::RenewalFailure;

#[test]
fn reports_of_one_token_renew_once() {
    explore_networks("reports", |network| {
        with_harness(network, TokenAge::Fresh, false, async |harness| {
            let tasks = [0, 0, 1].map(|at| {
                spawn(&harness, async move |harness| {
                    harness.get(at).await;
                    harness.report(at).await;
                })
            });
            join_all(tasks).await;
            harness.assert_quiescent(false).await;
            assert_eq!(harness.renewals(0), 1, "reports compared");
        });
    });
}

#[test]
fn failed_reports_fail_no_other_caller() {
    for failure in [
        |network| {
            failing_reports(network, || {
                let error = Error::new(ErrorKind::LoginRequired, "the refresh token is revoked");
                RenewalFailure::InvalidGrant(error)
            });
        },
        |network| {
            failing_reports(network, || {
                let error = Error::new(ErrorKind::WechatConfig, "the quota is exhausted");
                RenewalFailure::Operator(error)
            });
        },
    ] {
        explore_networks("reports that fail", failure);
    }
}

fn failing_reports(network: Network, failure: fn() -> RenewalFailure) {
    with_harness(network, TokenAge::Fresh, false, async |harness| {
        harness.fail_renewals_with(failure);
        let tasks = [
            spawn(&harness, async |harness| {
                for _ in 0..4 {
                    harness.report_without_success(0).await;
                }
            }),
            spawn(&harness, async |harness| {
                harness.get(0).await;
                harness.get(0).await;
                harness.get(0).await;
            }),
            spawn(&harness, async |harness| {
                harness.get(0).await;
                harness.get(1).await;
            }),
            spawn(&harness, async |harness| {
                harness.report_without_success(1).await;
            }),
        ];
        join_all(tasks).await;
        harness.assert_quiescent(false).await;
        for provider in &harness.providers {
            let served = provider.get(ID).await;
            assert!(
                served.is_ok(),
                "reports compared: a failed report must not remove the pair of other callers"
            );
        }
    });
}
