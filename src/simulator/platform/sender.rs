//! The task that sends pushes by itself: tickets every ten minutes, and events of authorizations after
//! a delay.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{delivery::deliver, push::SimulatedPush};
use crate::simulator::state::{SharedState, SimulatedWechat};

/// Maximum number of pushes at once: 16.
const MAX_CONCURRENT: usize = 16;
/// Time between two looks at the clock, which moves by itself too: one second.
const TICK: Duration = Duration::from_secs(1);

/// Sends due pushes until `finish` is cancelled. Pushes in progress then end without a reply.
pub(in crate::simulator) async fn send_pushes(shared: Arc<SharedState>, finish: CancellationToken) {
    let mut in_progress = JoinSet::new();
    loop {
        let next = start_due(&shared, &mut in_progress);
        tokio::select! {
            () = finish.cancelled() => return,
            () = shared.pushes_due.notified() => {}
            () = tokio::time::sleep_until(next) => {}
            Some(_) = in_progress.join_next() => {}
        }
    }
}

/// Starts due pushes, and returns the time of the next look.
fn start_due(shared: &Arc<SharedState>, in_progress: &mut JoinSet<()>) -> Instant {
    let mut wechat = shared.lock();
    wechat.queue_due_tickets();
    while in_progress.len() < MAX_CONCURRENT
        && let Some(push) = wechat.platforms.queue.take_due()
    {
        let shared = Arc::clone(shared);
        in_progress.spawn(async move {
            deliver(&shared, &push).await;
        });
    }
    let tick = Instant::now() + TICK;
    // With all places taken, the end of a push wakes the task.
    match wechat.platforms.queue.next_due() {
        Some(due) if in_progress.len() < MAX_CONCURRENT => due.min(tick),
        _ => tick,
    }
}

impl SimulatedWechat {
    /// Queues a ticket for each platform whose last ticket is as old as the interval.
    fn queue_due_tickets(&mut self) {
        let interval = self.settings.ticket_push_interval;
        if interval.is_zero() {
            return;
        }
        let now = self.now();
        let due: Vec<_> = self
            .platforms
            .iter()
            .filter(|platform| platform.pushes_tickets && platform.push_url.is_some())
            .filter(|platform| now >= platform.last_ticket_push.saturating_add(interval))
            .map(|platform| platform.index)
            .collect();
        for component in due {
            self.schedule_push(component, &SimulatedPush::ticket(), Duration::ZERO);
        }
    }
}
