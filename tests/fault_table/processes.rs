//! A process dies or stands still while it renews.

use std::time::Duration;

use tower_wechat::simulator::Fault;

use crate::rig::{Rig, Row, seconds};
use crate::support::demo_process::{DemoProcess, USER_HEADER};
use crate::support::http_client::Asked;
use crate::support::scene::{Layout, REFRESH};

const SERVED_OR_TOLD: &[(u16, &str)] = &[(200, ""), (503, "wechat_unavailable")];

/// How many renewals are under way when it happens.
const UNDER_WAY: u64 = 8;

/// A process that renews eight users, each for `delay`; those of its successor do not take as long.
async fn renewing(rig: &mut Rig, delay: Duration) -> DemoProcess {
    let slow = Fault::on(REFRESH).delay(delay).times(UNDER_WAY);
    rig.scene.wechat.inject(slow);
    let holder = rig.demos.remove(0);
    for user in &rig.users[..UNDER_WAY as usize] {
        let (site, user) = (holder.http().clone(), user.clone());
        tokio::spawn(async move {
            let asked = Asked::get("/api/me").header(USER_HEADER, &user);
            site.try_ask(asked).await
        });
    }
    rig.scene.refreshes_reach(UNDER_WAY).await;
    holder
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_killed_while_it_renews() {
    let row = Row {
        test: "a_process_is_killed_while_it_renews",
        fault: [
            "a process is killed while it holds leases",
            "进程持有租约时被杀死",
        ],
        sees: [
            "tokens that live are served by the others; users it was renewing whose token has expired get 503 until its lease of 10 s has run out",
            "其他进程照常提供未过期的令牌；它正在刷新且令牌已过期的用户，在 10 秒租约到期前得到 503",
        ],
        answers: SERVED_OR_TOLD,
    };
    let mut rig = Rig::start(&row, Layout::Hashes, 2).await;
    let holder = renewing(&mut rig, Duration::from_millis(1_500)).await;
    drop(holder);
    rig.during(seconds(12.0)).await;
    rig.recovers().await;
    assert!(
        rig.scene.refreshes() <= 16,
        "at most once more for each: {}",
        rig.scene.refreshes()
    );
    rig.print(&row, false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_stands_still_past_its_lease() {
    let row = Row {
        test: "a_process_stands_still_past_its_lease",
        fault: [
            "a process stands still for 12 s while it holds leases (SIGSTOP), and goes on",
            "进程持有租约时停顿 12 秒（SIGSTOP）后继续",
        ],
        sees: [
            "as above; what it brings when it goes on changes nothing that is newer",
            "同上；它恢复后带回的旧结果不会覆盖更新的令牌",
        ],
        answers: SERVED_OR_TOLD,
    };
    let mut rig = Rig::start(&row, Layout::Keys, 2).await;
    let holder = renewing(&mut rig, Duration::from_millis(500)).await;
    holder.signal("STOP");
    rig.during(seconds(12.0)).await;
    holder.signal("CONT");
    rig.demos.push(holder);
    rig.recovers().await;
    rig.during(seconds(1.0)).await;
    assert!(
        rig.scene.refreshes() <= 16,
        "at most once more for each: {}",
        rig.scene.refreshes()
    );
    rig.print(&row, false);
}
