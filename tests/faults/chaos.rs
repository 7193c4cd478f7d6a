//! The faults of a run: processes are killed, ended and stopped, connections are disturbed, WeChat
//! fails, and WeChat's clock moves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tower_wechat::simulator::Fault;

use crate::crowd::Crowd;
use crate::support::harness::REFRESH;
use crate::support::proxy::{Proxy, Weather};

/// A pause of 10.5 s, longer than a lease, which lasts 10 s.
const LONGER_THAN_A_LEASE: Duration = Duration::from_millis(10_500);

/// The proxies through which the processes reach Redis and WeChat.
pub struct Wires {
    pub redis: Proxy,
    pub wechat: Proxy,
}

/// Number of faults by name, and their consequences.
#[derive(Default)]
pub struct Done {
    pub times: BTreeMap<&'static str, u64>,
    /// Begin and end, by WeChat's clock, of each kill and each stop of a process. A process could
    /// not store a response that it had received shortly before or meanwhile.
    pub stuck: Vec<(SystemTime, SystemTime)>,
    /// Output of the processes that panicked after SIGTERM or did not exit with 0.
    pub bad_ends: Vec<String>,
    /// Number of WeChat's responses that the simulator was set to replace with failures.
    pub failing_replies: u64,
}

impl Done {
    fn note(&mut self, what: &'static str) {
        *self.times.entry(what).or_default() += 1;
    }

    pub fn number_of(&self, what: &str) -> u64 {
        self.times.get(what).copied().unwrap_or(0)
    }
}

/// Damage to the connections when no other fault is active.
const BREEZE: Weather = Weather {
    delay: 50,
    longest_delay: Duration::from_millis(60),
    cut: 4,
    truncate: 4,
    blackhole: 0,
};

const STORM: Weather = Weather {
    delay: 200,
    longest_delay: Duration::from_millis(400),
    cut: 60,
    truncate: 60,
    blackhole: 30,
};

pub struct Chaos {
    pub crowd: Arc<Crowd>,
    pub wires: Wires,
    pub rng: fastrand::Rng,
    pub done: Done,
    /// Tasks that continue the stopped processes after a while.
    stopped: tokio::task::JoinSet<()>,
}

impl Chaos {
    pub fn new(crowd: Arc<Crowd>, wires: Wires, rng: fastrand::Rng) -> Self {
        Self {
            crowd,
            wires,
            rng,
            done: Done::default(),
            stopped: tokio::task::JoinSet::new(),
        }
    }

    pub fn calm(&self) {
        for wire in [&self.wires.redis, &self.wires.wechat] {
            wire.weather(Weather::CALM);
            wire.silent(false);
        }
        self.crowd.harness.wechat.clear_faults();
    }

    pub fn breeze(&self) {
        for wire in [&self.wires.redis, &self.wires.wechat] {
            wire.weather(BREEZE);
            wire.silent(false);
        }
        // Each refresh takes 80 ms, so that faults also occur while a call is under way.
        let slow = Fault::on(REFRESH).delay(Duration::from_millis(80));
        self.crowd.harness.wechat.inject(slow);
    }

    /// Causes one random fault. The process in the first place is never killed or ended.
    pub async fn strike(&mut self) {
        let place = self.rng.usize(1..self.crowd.fleet.places.len());
        match self.rng.u32(..16) {
            0..=3 => self.kill(place).await,
            4 => self.terminate(place).await,
            5..=6 => self.stop(),
            7..=8 => self.storm(true).await,
            9..=10 => self.storm(false).await,
            11 => self.silence(true).await,
            12 => self.silence(false).await,
            13 => self.cut_all(),
            14 => self.wechat_fails(),
            15 if self.crowd.rotates.load(Ordering::SeqCst) => self.outage().await,
            // With new refresh tokens, the clock is not moved: a lost response would show only at
            // the next renewal, and look like a bug.
            _ if self.crowd.rotates.load(Ordering::SeqCst) => self.wechat_fails(),
            _ => self.time_passes(),
        }
    }

    pub async fn settle(&mut self) {
        while self.stopped.join_next().await.is_some() {}
    }

    pub async fn kill(&mut self, place: usize) {
        let member = self.crowd.fleet.vacate(place);
        let before = self.crowd.harness.wechat.now();
        member.kill().await;
        self.done
            .stuck
            .push((before, self.crowd.harness.wechat.now()));
        self.done.note("killed");
        self.crowd.fleet.fill(place).await;
    }

    async fn terminate(&mut self, place: usize) {
        let member = self.crowd.fleet.vacate(place);
        let (code, log) = member.terminate().await;
        self.done.note("ended");
        if code != Some(0) || log.contains("panicked") {
            self.done.bad_ends.push(format!("{code:?}: {log}"));
        }
        self.crowd.fleet.fill(place).await;
    }

    /// Stops a random process with SIGSTOP: in one case of four for longer than a lease, and for
    /// less than 2 s otherwise.
    fn stop(&mut self) {
        let place = self.rng.usize(..self.crowd.fleet.places.len());
        let Some(member) = self.crowd.fleet.member(place) else {
            return;
        };
        let time = match self.rng.u32(..4) {
            0 => LONGER_THAN_A_LEASE,
            _ => Duration::from_millis(self.rng.u64(50..2_000)),
        };
        self.done.note("stopped");
        let now = self.crowd.harness.wechat.now();
        self.done.stuck.push((now, now + time));
        self.stopped
            .spawn(async move { member.stop_for(time).await });
    }

    fn wire(&self, redis: bool) -> &Proxy {
        match redis {
            true => &self.wires.redis,
            false => &self.wires.wechat,
        }
    }

    async fn storm(&mut self, redis: bool) {
        let time = Duration::from_millis(self.rng.u64(100..1_500));
        self.wire(redis).weather(STORM);
        tokio::time::sleep(time).await;
        self.wire(redis).weather(BREEZE);
        self.done.note(match redis {
            true => "storms before Redis",
            false => "storms before WeChat",
        });
    }

    async fn silence(&mut self, redis: bool) {
        let time = Duration::from_millis(self.rng.u64(100..2_500));
        self.wire(redis).silent(true);
        tokio::time::sleep(time).await;
        self.wire(redis).silent(false);
        self.done.note(match redis {
            true => "silences of Redis",
            false => "silences of WeChat",
        });
    }

    /// Makes Redis unreachable for longer than a lease, and drops the commands that were sent
    /// meanwhile. A pair that WeChat issues during this time must still be stored.
    async fn outage(&mut self) {
        self.wires.redis.silent(true);
        tokio::time::sleep(LONGER_THAN_A_LEASE).await;
        self.wires.redis.cut_all();
        self.wires.redis.silent(false);
        self.done.note("outages of Redis longer than a lease");
    }

    fn cut_all(&mut self) {
        let redis = self.rng.bool();
        self.wire(redis).cut_all();
        self.done.note("all connections cut");
    }

    fn wechat_fails(&mut self) {
        let fault = Fault::on(REFRESH);
        let fault = match self.rng.u32(..5) {
            0 => fault.errcode(-1),
            1 => fault.status(502).body("<html>bad gateway</html>"),
            2 => fault.body(""),
            3 => fault.reset(),
            _ => fault.body("{\"access_token\":"),
        };
        let times = self.rng.u64(1..20);
        self.done.failing_replies += times;
        self.crowd.harness.wechat.inject(fault.times(times));
        self.done.note("failures of WeChat");
    }

    /// Advances WeChat's clock until all tokens have expired there. The processes do not notice,
    /// because their clocks do not move.
    fn time_passes(&mut self) {
        let life = self
            .crowd
            .harness
            .wechat
            .settings(|now| now.user_token_lifetime);
        self.crowd.harness.wechat.advance(life);
        self.done.note("times WeChat's clock ran ahead");
    }
}
