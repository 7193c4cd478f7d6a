//! Tests of the table of channels without a connection.

use super::*;

fn app(number: usize) -> AppId {
    AppId::new(format!("wx{number}")).unwrap()
}

fn subscribe(table: &ChannelTable, number: usize) -> (Subscription, Option<u64>) {
    table.subscribe(&app(number), format!("channel{number}"))
}

fn due(table: &ChannelTable) -> usize {
    table.due_channels(Instant::now(), usize::MAX).len()
}

#[tokio::test]
async fn accounts_that_came_once_leave_nothing() {
    let table = ChannelTable::default();
    let (stays, number) = subscribe(&table, 0);
    let number = number.expect("the first subscription starts the listener");
    for round in 1..1_000 {
        let (subscription, second) = subscribe(&table, round);
        assert_eq!(second, None, "a listener runs");
        table.mark_live(&[format!("channel{round}").into()]);
        drop(subscription);
        assert!(table.needs_listener(number));
    }
    assert_eq!(table.lock().channels.len(), 1);
    drop(stays);
    assert!(!table.needs_listener(number));
    let (_next, second) = subscribe(&table, 1);
    assert_eq!(second, Some(number + 1));
    assert!(!table.needs_listener(number), "another listener serves it");
    assert_eq!(due(&table), 1);
}

#[tokio::test]
async fn the_removal_of_a_channel_is_a_change() {
    let table = ChannelTable::default();
    let (_stays, number) = subscribe(&table, 0);
    let (leaves, _) = subscribe(&table, 1);
    drop(leaves);
    let changes = table.changes();
    assert!(table.needs_listener(number.unwrap()));
    assert!(changes.has_changed().unwrap());
    let changes = table.changes();
    assert!(table.needs_listener(number.unwrap()));
    assert!(!changes.has_changed().unwrap(), "nothing was removed");
}

#[tokio::test]
async fn the_end_of_the_listener_closes_its_subscriptions() {
    let table = ChannelTable::default();
    let (mut first, number) = subscribe(&table, 0);
    table.close(number.unwrap() + 1);
    assert_eq!(due(&table), 1, "another listener has ended");
    table.close(number.unwrap());
    assert!(matches!(first.next_event().await, Event::Closed));
    let (_again, number) = subscribe(&table, 0);
    assert!(number.is_some());
}

#[tokio::test]
async fn a_rejected_channel_is_due_later() {
    let table = ChannelTable::default();
    let (_first, _) = subscribe(&table, 0);
    let (mut second, _) = subscribe(&table, 1);
    table.mark_rejected("channel0");
    table.mark_live(&["channel1".into()]);
    assert!(matches!(second.next_event().await, Event::Subscribed));
    assert_eq!(due(&table), 0);
    let later = Instant::now() + REJECTED_RETRY_DELAY;
    assert_eq!(table.due_channels(later, 9), [Arc::from("channel0")]);
    table.mark_lost();
    assert_eq!(due(&table), 1, "only the live channel waits again");
    assert_eq!(table.live_count_and_next_retry().0, 0);
}

#[tokio::test]
async fn heartbeats_take_turns_and_leave_out_rejected_channels() {
    let table = ChannelTable::default();
    let names: Vec<Arc<str>> = (0..4).map(|at| format!("channel{at}").into()).collect();
    let mut all: Vec<_> = (0..4).map(|at| subscribe(&table, at).0).collect();
    table.mark_live(&names[..3]);
    let next = |last| table.heartbeat_channels(last, Instant::now(), 9);
    assert_eq!(next(None), names[..3], "each new channel once");
    table.mark_publishing_rejected("channel1");
    for name in ["channel0", "channel2"] {
        table.mark_publishing_permitted(name);
    }
    assert_eq!(next(None), names[..1]);
    assert_eq!(next(Some(&names[0])), names[2..3]);
    assert_eq!(next(Some(&names[2])), names[..1]);
    let early = Instant::now();
    table.mark_lost();
    table.mark_live(&names[..3]);
    let sent_at = Instant::now();
    table.publish_synced(None, early);
    table.publish_synced(None, sent_at);
    for (at, synced) in [(0, true), (1, false), (2, true), (3, false)] {
        let mut received = Vec::new();
        while let Ok(event) =
            tokio::time::timeout(std::time::Duration::ZERO, all[at].next_event()).await
        {
            received.push(event);
        }
        let times: Vec<_> = received
            .iter()
            .filter_map(|event| match event {
                Event::Synced(time) => Some(*time),
                _ => None,
            })
            .collect();
        let expected: &[Instant] = if synced { &[sent_at] } else { &[] };
        assert_eq!(times, expected, "channel{at}");
    }
}
