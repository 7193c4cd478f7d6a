//! What the cache holds, in how much room, and what it makes of news and of news that was missed.

use super::*;
use crate::credential::{Details, Lifetime};
use crate::keeper::held::Origin;

const TTL: Duration = Duration::from_secs(60);
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// As a read at this time finds it.
fn read(cache: &Cache, token: &str, now: Timestamp) -> Held {
    read_of(cache, "oA", token, now)
}

fn read_of(cache: &Cache, id: &str, token: &str, now: Timestamp) -> Held {
    let lifetime = Lifetime::granted(NOW, Some(7_200), secs(900));
    let believable = now..lifetime.renew_at();
    let (token, details) = (AccessToken::from(token), Details::default());
    let (origin, era) = (Origin::Stored, cache.era());
    Held::new(id, &token, lifetime, &details, believable, origin, era)
}

fn fresh(cache: &Cache, now: Timestamp) -> Option<String> {
    let held = cache.fresh("oA", now)?;
    Some(held.secret().expose().to_owned())
}

fn holding(token: &str) -> Cache {
    let cache = Cache::new(100, TTL);
    cache.remember(read(&cache, token, NOW), &cache.fence("oA"));
    assert_eq!(fresh(&cache, NOW).as_deref(), Some(token));
    cache
}

#[test]
fn news_of_what_is_held_changes_nothing() {
    let cache = holding("t1");
    cache.told("oA", Some(read(&cache, "t1", NOW).mark()));
    assert_eq!(fresh(&cache, NOW).as_deref(), Some("t1"));
}

#[test]
fn what_was_replaced_serves_only_while_the_store_is_away_and_what_was_deleted_not_at_all() {
    let cache = holding("t1");
    cache.told("oA", Some(read(&cache, "t2", NOW).mark()));
    assert_eq!(fresh(&cache, NOW), None);
    assert!(cache.leftover("oA", NOW).is_some());
    cache.told("oA", None);
    assert!(cache.leftover("oA", NOW).is_none());
}

#[test]
fn news_ends_the_memory_of_a_stranger() {
    let cache = Cache::new(100, TTL);
    cache.remember_absent("oA", NOW, &cache.fence("oA"));
    assert!(cache.is_absent("oA", NOW));
    cache.told("oA", Some(read(&cache, "t1", NOW).mark()));
    assert!(!cache.is_absent("oA", NOW));
}

/// Somebody else who stands behind the same fence.
fn neighbour(cache: &Cache) -> String {
    let fence = |id: &str| cache.key(id).number() % FENCES as u64;
    let others = (0..).map(|number| format!("o{number}"));
    let mut behind = others.filter(|other| fence(other) == fence("oA"));
    behind.next().unwrap()
}

#[test]
fn what_happens_to_neighbours_disturbs_nobody() {
    let cache = Cache::new(100, TTL);
    let other = neighbour(&cache);
    let mark = |token| Some(read(&cache, token, NOW).mark());
    // A login, while news of others comes, and they log in and out themselves.
    let fence = cache.forget("oA");
    cache.told(&other, mark("t9"));
    cache.told("oA", mark("t1"));
    cache.told(&other, None);
    cache.forget(&other);
    cache.settle("oA", Some(&read(&cache, "t1", NOW)), NOW, &fence);
    assert_eq!(fresh(&cache, NOW).as_deref(), Some("t1"));
    // The same of a read.
    let fence = cache.fence("oA");
    cache.told(&other, mark("t1"));
    assert!(cache.is_undisturbed(&fence));
    cache.remember(read(&cache, "t2", NOW), &fence);
    assert_eq!(fresh(&cache, NOW).as_deref(), Some("t2"));
}

#[test]
fn what_is_older_is_not_remembered_however_much_neighbours_do() {
    for neighbours in 0..2 * WRITES {
        let cache = Cache::new(100, TTL);
        let (other, older) = (neighbour(&cache), read(&cache, "t1", NOW));
        let fences = [(); 3].map(|()| cache.fence("oA"));
        cache.told("oA", Some(read(&cache, "t2", NOW).mark()));
        for _ in 0..neighbours {
            cache.told(&other, Some(older.mark()));
        }
        assert!(!cache.is_undisturbed(&fences[0]));
        cache.remember(older.clone(), &fences[0]);
        assert_eq!(fresh(&cache, NOW), None, "{neighbours}");
        cache.remember_absent("oA", NOW, &fences[1]);
        assert!(!cache.is_absent("oA", NOW), "{neighbours}");
        cache.settle("oA", Some(&older), NOW, &fences[2]);
        assert_eq!(fresh(&cache, NOW), None, "{neighbours}");
    }
}

/// All take their fence before the first of them has its answer.
#[test]
fn of_a_crowd_that_reads_at_once_everybody_is_remembered() {
    let cache = Cache::new(20_000, TTL);
    let ids: Vec<String> = (0..10_000).map(|number| format!("o{number}")).collect();
    let fences: Vec<Fence> = ids.iter().map(|id| cache.fence(id)).collect();
    for (id, fence) in ids.iter().zip(&fences) {
        cache.remember(read_of(&cache, id, "t1", NOW), fence);
    }
    // Chance may put more behind one fence than it remembers.
    let asked_again = ids.iter().filter(|id| cache.fresh(id, NOW).is_none());
    assert!(asked_again.count() < 100);
}

#[test]
fn a_read_that_news_crosses_is_remembered_only_if_it_is_what_was_told() {
    let cache = Cache::new(100, TTL);
    let fence = cache.fence("oA");
    cache.told("oA", Some(read(&cache, "t2", NOW).mark()));
    cache.remember(read(&cache, "t1", NOW), &fence);
    assert_eq!(fresh(&cache, NOW), None, "it was read before");
    cache.remember(read(&cache, "t2", NOW), &fence);
    assert_eq!(fresh(&cache, NOW).as_deref(), Some("t2"));

    let fence = cache.fence("oA");
    cache.told("oA", None);
    cache.remember(read(&cache, "t2", NOW), &fence);
    assert_eq!(fresh(&cache, NOW), None, "it was deleted meanwhile");

    // Of several writes the last one counts.
    let fence = cache.fence("oA");
    cache.told("oA", Some(read(&cache, "t3", NOW).mark()));
    cache.told("oA", Some(read(&cache, "t4", NOW).mark()));
    cache.remember(read(&cache, "t3", NOW), &fence);
    assert_eq!(fresh(&cache, NOW), None);
    cache.remember(read(&cache, "t4", NOW), &fence);
    assert_eq!(fresh(&cache, NOW).as_deref(), Some("t4"));

    // What happened here has no place in the order of the news.
    let fence = cache.fence("oA");
    cache.forget("oA");
    cache.told("oA", Some(read(&cache, "t4", NOW).mark()));
    cache.remember(read(&cache, "t4", NOW), &fence);
    assert_eq!(fresh(&cache, NOW), None);
}

#[test]
fn news_of_ones_own_write_does_not_spoil_it() {
    let cache = holding("t1");
    let t2 = read(&cache, "t2", NOW);
    for news_first in [true, false] {
        let fence = cache.forget("oA");
        if news_first {
            cache.told("oA", Some(t2.mark()));
        }
        cache.settle("oA", Some(&t2), NOW, &fence);
        cache.told("oA", Some(t2.mark()));
        assert_eq!(fresh(&cache, NOW).as_deref(), Some("t2"), "{news_first}");
    }
    // Another's write came in between: the store knows which was the last.
    let fence = cache.forget("oA");
    cache.told("oA", Some(t2.mark()));
    cache.told("oA", Some(read(&cache, "t3", NOW).mark()));
    cache.settle("oA", Some(&t2), NOW, &fence);
    assert_eq!(fresh(&cache, NOW), None);
}

#[test]
fn older_news_costs_a_read_and_brings_nothing_back() {
    let cache = holding("t2");
    let fence = cache.fence("oA");
    cache.told("oA", Some(read(&cache, "t1", NOW).mark()));
    assert_eq!(fresh(&cache, NOW), None);
    cache.remember(read(&cache, "t2", NOW), &cache.fence("oA"));
    cache.remember(read(&cache, "t0", NOW), &fence);
    assert_eq!(fresh(&cache, NOW).as_deref(), Some("t2"));
}

#[test]
fn an_entry_lives_as_long_as_it_is_proved_and_the_bounded_time_beyond() {
    let cache = holding("t1");
    assert!(fresh(&cache, NOW.after(secs(59))).is_some());
    assert!(fresh(&cache, NOW.after(secs(60))).is_none());
    cache.prove(NOW.after(secs(50)));
    assert!(fresh(&cache, NOW.after(secs(109))).is_some());
    assert!(fresh(&cache, NOW.after(secs(110))).is_none());
    cache.prove(NOW.after(secs(6_200)));
    assert!(fresh(&cache, NOW.after(secs(6_250))).is_some());
    assert!(fresh(&cache, NOW.after(secs(6_300))).is_none(), "renewal");
    // A wall clock that is set back prolongs nothing.
    assert!(fresh(&cache, NOW.after(secs(100))).is_none());
    cache.unprove();
    assert!(fresh(&cache, NOW.after(secs(6_250))).is_none());
}

#[test]
fn an_era_ends_for_what_was_read_and_for_what_is_being_read() {
    let cache = holding("t1");
    cache.prove(NOW);
    let fence = cache.fence("oA");
    cache.outdate_all();
    assert_eq!(fresh(&cache, NOW), None);
    cache.remember(read(&cache, "t1", NOW), &fence);
    assert_eq!(fresh(&cache, NOW), None, "its read began before");
    assert!(cache.leftover("oA", NOW).is_some(), "the store may be away");
    cache.remember(read(&cache, "t2", NOW), &cache.fence("oA"));
    assert_eq!(fresh(&cache, NOW).as_deref(), Some("t2"));
    assert!(fresh(&cache, NOW.after(secs(61))).is_none(), "no proof yet");
}

#[test]
fn without_time_in_the_cache_nothing_is_believed() {
    let cache = Cache::new(100, Duration::ZERO);
    cache.remember(read(&cache, "t1", NOW), &cache.fence("oA"));
    cache.prove(NOW);
    assert_eq!(fresh(&cache, NOW), None);
}

fn held(id: &str) -> Held {
    let details = Details {
        openid: Some(id.into()),
        scope: Some("snsapi_userinfo".into()),
        unionid: None,
        sessions_from: None,
    };
    let lifetime = Lifetime::granted(NOW, Some(7_200), Duration::from_secs(900));
    let token = AccessToken::new(format!("{id:a>110}"));
    let until = NOW.after(Duration::from_secs(60));
    Held::new(
        id,
        &token,
        lifetime,
        &details,
        NOW..until,
        Origin::Stored,
        0,
    )
}

/// As long as openids are.
fn id(at: usize) -> String {
    format!("o6_bmjrPTlm6_2sgVt7h{at:08}")
}

fn filled(users: usize, capacity: usize) -> Cache {
    let cache = Cache::new(capacity, TTL);
    for at in 0..users {
        let id = id(at);
        cache.remember(held(&id), &cache.fence(&id));
    }
    cache
}

#[test]
fn a_cached_user_takes_240_bytes() {
    const USERS: usize = 100_000;
    let mut cache = None;
    let counted = allocation_counter::measure(|| cache = Some(filled(USERS, USERS)));
    let cache = cache.unwrap();
    // Shards are not all equally full when the first is.
    assert!(cache.len() > USERS * 98 / 100, "{}", cache.len());
    let each = counted.bytes_current as usize / cache.len();
    assert!(each <= 240, "{each} bytes for each user");
}

#[test]
fn the_capacity_bounds_it_and_whoever_is_used_stays() {
    let cache = filled(1_000, 1_000);
    let often: Vec<String> = (0..100).map(id).collect();
    for _ in 0..3 {
        for id in &often {
            cache.fresh(id, NOW);
        }
    }
    let before = often.iter().filter(|id| cache.fresh(id, NOW).is_some());
    let before = before.count();
    assert!(before > 80, "{before}");
    for at in 1_000..11_000 {
        let id = id(at);
        cache.remember(held(&id), &cache.fence(&id));
    }
    assert!(cache.len() <= 1_000, "{}", cache.len());
    let after = often.iter().filter(|id| cache.fresh(id, NOW).is_some());
    let after = after.count();
    assert!(after > before * 8 / 10, "{after} of {before} have stayed");
}

#[test]
fn who_shares_a_key_with_somebody_is_not_taken_for_them() {
    let cache = Cache::new(10, TTL);
    // Chance does not bring two such ids together, so the entry is put there by hand.
    cache.entries.insert(cache.key("a"), held("b"));
    assert!(cache.fresh("a", NOW).is_none());
    assert!(cache.leftover("a", NOW).is_none());
    cache.outdate("a", held("b").secret());
    cache.forget("a");
    assert_eq!(cache.len(), 1, "what is another's stays");
}
