//! What the cache holds, in how much room, and what it makes of news and of news that was missed.

use super::*;
use crate::credential::{Lifetime, UserDetails};
use crate::provider::entry::EntryOrigin;
use crate::provider::versions::TRACKED_WRITES;

const TTL: Duration = Duration::from_secs(60);
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// As a read at this time finds it.
fn entry_of_token(cache: &Cache, token: &str, now: Timestamp) -> CacheEntry {
    entry_of(cache, "oA", token, now)
}

fn entry_of(cache: &Cache, id: &str, token: &str, now: Timestamp) -> CacheEntry {
    let lifetime = Lifetime::from_response(NOW, Some(7_200), secs(900));
    let validity = now..lifetime.renew_at();
    let (token, details) = (AccessToken::from(token), UserDetails::default());
    let (origin, era) = (EntryOrigin::Stored, cache.epoch());
    CacheEntry::new(id, &token, lifetime, &details, validity, origin, era)
}

fn fresh_token(cache: &Cache, now: Timestamp) -> Option<String> {
    let held = cache.fresh("oA", now)?;
    Some(held.secret().expose().to_owned())
}

fn cache_with(token: &str) -> Cache {
    let cache = Cache::new(100, TTL);
    cache.insert_if_unchanged(entry_of_token(&cache, token, NOW), &cache.stamp("oA"));
    assert_eq!(fresh_token(&cache, NOW).as_deref(), Some(token));
    cache
}

#[test]
fn invalidation_of_the_cached_version_is_ignored() {
    let cache = cache_with("t1");
    cache.on_invalidation("oA", Some(entry_of_token(&cache, "t1", NOW).version()));
    assert_eq!(fresh_token(&cache, NOW).as_deref(), Some("t1"));
}

#[test]
fn replaced_entries_stay_for_outages_deleted_ones_go() {
    let cache = cache_with("t1");
    cache.on_invalidation("oA", Some(entry_of_token(&cache, "t2", NOW).version()));
    assert_eq!(fresh_token(&cache, NOW), None);
    assert!(cache.unexpired("oA", NOW).is_some());
    cache.on_invalidation("oA", None);
    assert!(cache.unexpired("oA", NOW).is_none());
}

#[test]
fn invalidation_removes_a_negative_entry() {
    let cache = Cache::new(100, TTL);
    cache.insert_absent_if_unchanged("oA", NOW, &cache.stamp("oA"));
    assert!(cache.is_known_absent("oA", NOW));
    cache.on_invalidation("oA", Some(entry_of_token(&cache, "t1", NOW).version()));
    assert!(!cache.is_known_absent("oA", NOW));
}

/// Somebody else who stands behind the same fence.
fn id_in_same_shard(cache: &Cache) -> String {
    let fence = |id: &str| cache.key(id).as_u64() % SHARDS as u64;
    let others = (0..).map(|number| format!("o{number}"));
    let mut behind = others.filter(|other| fence(other) == fence("oA"));
    behind.next().unwrap()
}

#[test]
fn events_of_other_ids_in_a_shard_do_not_interfere() {
    let cache = Cache::new(100, TTL);
    let other = id_in_same_shard(&cache);
    let mark = |token| Some(entry_of_token(&cache, token, NOW).version());
    // A login, while news of others comes, and they log in and out themselves.
    let fence = cache.invalidate("oA");
    cache.on_invalidation(&other, mark("t9"));
    cache.on_invalidation("oA", mark("t1"));
    cache.on_invalidation(&other, None);
    cache.invalidate(&other);
    cache.complete_write("oA", Some(&entry_of_token(&cache, "t1", NOW)), NOW, &fence);
    assert_eq!(fresh_token(&cache, NOW).as_deref(), Some("t1"));
    // The same of a read.
    let fence = cache.stamp("oA");
    cache.on_invalidation(&other, mark("t1"));
    assert!(cache.is_unchanged(&fence));
    cache.insert_if_unchanged(entry_of_token(&cache, "t2", NOW), &fence);
    assert_eq!(fresh_token(&cache, NOW).as_deref(), Some("t2"));
}

#[test]
fn older_entries_are_rejected_in_a_busy_shard() {
    for neighbours in 0..2 * TRACKED_WRITES {
        let cache = Cache::new(100, TTL);
        let (other, older) = (id_in_same_shard(&cache), entry_of_token(&cache, "t1", NOW));
        let fences = [(); 3].map(|()| cache.stamp("oA"));
        cache.on_invalidation("oA", Some(entry_of_token(&cache, "t2", NOW).version()));
        for _ in 0..neighbours {
            cache.on_invalidation(&other, Some(older.version()));
        }
        assert!(!cache.is_unchanged(&fences[0]));
        cache.insert_if_unchanged(older.clone(), &fences[0]);
        assert_eq!(fresh_token(&cache, NOW), None, "{neighbours}");
        cache.insert_absent_if_unchanged("oA", NOW, &fences[1]);
        assert!(!cache.is_known_absent("oA", NOW), "{neighbours}");
        cache.complete_write("oA", Some(&older), NOW, &fences[2]);
        assert_eq!(fresh_token(&cache, NOW), None, "{neighbours}");
    }
}

/// All take their fence before the first of them has its answer.
#[test]
fn ten_thousand_concurrent_reads_are_all_cached() {
    let cache = Cache::new(20_000, TTL);
    let ids: Vec<String> = (0..10_000).map(|number| format!("o{number}")).collect();
    let fences: Vec<VersionStamp> = ids.iter().map(|id| cache.stamp(id)).collect();
    for (id, fence) in ids.iter().zip(&fences) {
        cache.insert_if_unchanged(entry_of(&cache, id, "t1", NOW), fence);
    }
    // Chance may put more behind one fence than it remembers.
    let asked_again = ids.iter().filter(|id| cache.fresh(id, NOW).is_none());
    assert!(asked_again.count() < 100);
}

#[test]
fn a_read_is_cached_only_if_it_matches_the_invalidation() {
    let cache = Cache::new(100, TTL);
    let fence = cache.stamp("oA");
    cache.on_invalidation("oA", Some(entry_of_token(&cache, "t2", NOW).version()));
    cache.insert_if_unchanged(entry_of_token(&cache, "t1", NOW), &fence);
    assert_eq!(fresh_token(&cache, NOW), None, "it was read before");
    cache.insert_if_unchanged(entry_of_token(&cache, "t2", NOW), &fence);
    assert_eq!(fresh_token(&cache, NOW).as_deref(), Some("t2"));

    let fence = cache.stamp("oA");
    cache.on_invalidation("oA", None);
    cache.insert_if_unchanged(entry_of_token(&cache, "t2", NOW), &fence);
    assert_eq!(fresh_token(&cache, NOW), None, "it was deleted meanwhile");

    // Of several writes the last one counts.
    let fence = cache.stamp("oA");
    cache.on_invalidation("oA", Some(entry_of_token(&cache, "t3", NOW).version()));
    cache.on_invalidation("oA", Some(entry_of_token(&cache, "t4", NOW).version()));
    cache.insert_if_unchanged(entry_of_token(&cache, "t3", NOW), &fence);
    assert_eq!(fresh_token(&cache, NOW), None);
    cache.insert_if_unchanged(entry_of_token(&cache, "t4", NOW), &fence);
    assert_eq!(fresh_token(&cache, NOW).as_deref(), Some("t4"));

    // What happened here has no place in the order of the news.
    let fence = cache.stamp("oA");
    cache.invalidate("oA");
    cache.on_invalidation("oA", Some(entry_of_token(&cache, "t4", NOW).version()));
    cache.insert_if_unchanged(entry_of_token(&cache, "t4", NOW), &fence);
    assert_eq!(fresh_token(&cache, NOW), None);
}

#[test]
fn invalidation_of_an_own_write_keeps_the_entry() {
    let cache = cache_with("t1");
    let t2 = entry_of_token(&cache, "t2", NOW);
    for news_first in [true, false] {
        let fence = cache.invalidate("oA");
        if news_first {
            cache.on_invalidation("oA", Some(t2.version()));
        }
        cache.complete_write("oA", Some(&t2), NOW, &fence);
        cache.on_invalidation("oA", Some(t2.version()));
        assert_eq!(
            fresh_token(&cache, NOW).as_deref(),
            Some("t2"),
            "{news_first}"
        );
    }
    // Another's write came in between: the store knows which was the last.
    let fence = cache.invalidate("oA");
    cache.on_invalidation("oA", Some(t2.version()));
    cache.on_invalidation("oA", Some(entry_of_token(&cache, "t3", NOW).version()));
    cache.complete_write("oA", Some(&t2), NOW, &fence);
    assert_eq!(fresh_token(&cache, NOW), None);
}

#[test]
fn a_late_invalidation_restores_no_older_entry() {
    let cache = cache_with("t2");
    let fence = cache.stamp("oA");
    cache.on_invalidation("oA", Some(entry_of_token(&cache, "t1", NOW).version()));
    assert_eq!(fresh_token(&cache, NOW), None);
    cache.insert_if_unchanged(entry_of_token(&cache, "t2", NOW), &cache.stamp("oA"));
    cache.insert_if_unchanged(entry_of_token(&cache, "t0", NOW), &fence);
    assert_eq!(fresh_token(&cache, NOW).as_deref(), Some("t2"));
}

#[test]
fn entries_are_valid_until_cache_ttl_after_the_last_sync() {
    let cache = cache_with("t1");
    assert!(fresh_token(&cache, NOW.saturating_add(secs(59))).is_some());
    assert!(fresh_token(&cache, NOW.saturating_add(secs(60))).is_none());
    cache.mark_synced(NOW.saturating_add(secs(50)));
    assert!(fresh_token(&cache, NOW.saturating_add(secs(109))).is_some());
    assert!(fresh_token(&cache, NOW.saturating_add(secs(110))).is_none());
    cache.mark_synced(NOW.saturating_add(secs(6_200)));
    assert!(fresh_token(&cache, NOW.saturating_add(secs(6_250))).is_some());
    assert!(
        fresh_token(&cache, NOW.saturating_add(secs(6_300))).is_none(),
        "renewal"
    );
    // A wall clock that is set back prolongs nothing.
    assert!(fresh_token(&cache, NOW.saturating_add(secs(100))).is_none());
    cache.mark_unsynced();
    assert!(fresh_token(&cache, NOW.saturating_add(secs(6_250))).is_none());
}

#[test]
fn a_new_epoch_invalidates_entries_and_running_reads() {
    let cache = cache_with("t1");
    cache.mark_synced(NOW);
    let fence = cache.stamp("oA");
    cache.invalidate_all();
    assert_eq!(fresh_token(&cache, NOW), None);
    cache.insert_if_unchanged(entry_of_token(&cache, "t1", NOW), &fence);
    assert_eq!(fresh_token(&cache, NOW), None, "its read began before");
    assert!(
        cache.unexpired("oA", NOW).is_some(),
        "the store may be away"
    );
    cache.insert_if_unchanged(entry_of_token(&cache, "t2", NOW), &cache.stamp("oA"));
    assert_eq!(fresh_token(&cache, NOW).as_deref(), Some("t2"));
    assert!(
        fresh_token(&cache, NOW.saturating_add(secs(61))).is_none(),
        "no proof yet"
    );
}

#[test]
fn a_cache_ttl_of_zero_serves_nothing() {
    let cache = Cache::new(100, Duration::ZERO);
    cache.insert_if_unchanged(entry_of_token(&cache, "t1", NOW), &cache.stamp("oA"));
    cache.mark_synced(NOW);
    assert_eq!(fresh_token(&cache, NOW), None);
}

fn full_entry(id: &str) -> CacheEntry {
    let details = UserDetails {
        openid: Some(id.into()),
        scope: Some("snsapi_userinfo".into()),
        unionid: None,
        sessions_valid_from: None,
    };
    let lifetime = Lifetime::from_response(NOW, Some(7_200), Duration::from_secs(900));
    let token = AccessToken::new(format!("{id:a>110}"));
    let until = NOW.saturating_add(Duration::from_secs(60));
    CacheEntry::new(
        id,
        &token,
        lifetime,
        &details,
        NOW..until,
        EntryOrigin::Stored,
        0,
    )
}

/// As long as openids are.
fn id(at: usize) -> String {
    format!("o6_bmjrPTlm6_2sgVt7h{at:08}")
}

fn filled_cache(users: usize, capacity: usize) -> Cache {
    let cache = Cache::new(capacity, TTL);
    for at in 0..users {
        let id = id(at);
        cache.insert_if_unchanged(full_entry(&id), &cache.stamp(&id));
    }
    cache
}

#[test]
fn a_cached_user_takes_240_bytes() {
    const USERS: usize = 100_000;
    let mut cache = None;
    let counted = allocation_counter::measure(|| cache = Some(filled_cache(USERS, USERS)));
    let cache = cache.unwrap();
    // Shards are not all equally full when the first is.
    assert!(cache.len() > USERS * 98 / 100, "{}", cache.len());
    let each = counted.bytes_current as usize / cache.len();
    assert!(each <= 240, "{each} bytes for each user");
}

#[test]
fn capacity_is_bounded_and_used_entries_stay() {
    let cache = filled_cache(1_000, 1_000);
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
        cache.insert_if_unchanged(full_entry(&id), &cache.stamp(&id));
    }
    assert!(cache.len() <= 1_000, "{}", cache.len());
    let after = often.iter().filter(|id| cache.fresh(id, NOW).is_some());
    let after = after.count();
    assert!(after > before * 8 / 10, "{after} of {before} have stayed");
}

#[test]
fn ids_with_the_same_key_are_kept_apart() {
    let cache = Cache::new(10, TTL);
    // Chance does not bring two such ids together, so the entry is put there by hand.
    cache.entries.insert(cache.key("a"), full_entry("b"));
    assert!(cache.fresh("a", NOW).is_none());
    assert!(cache.unexpired("a", NOW).is_none());
    cache.invalidate_if_token("a", full_entry("b").secret());
    cache.invalidate("a");
    assert_eq!(cache.len(), 1, "what is another's stays");
}
