//! Tests of the cache: the memory that it takes, its capacity, and its reaction to invalidations
//! that arrive or are missed.

use super::*;
use crate::credential::{Lifetime, UserDetails};
use crate::provider::entry::EntryOrigin;
use crate::provider::versions::TRACKED_WRITES;

const TTL: Duration = Duration::from_secs(60);
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Creates the cache entry that a read of this token at `now` would create.
fn entry_of_token(cache: &Cache, token: &str, now: Timestamp) -> CacheEntry {
    entry_of(cache, "oA", token, now)
}

fn entry_of(cache: &Cache, id: &str, token: &str, now: Timestamp) -> CacheEntry {
    let lifetime = Lifetime::from_response(NOW, Some(7_200), secs(900));
    let validity = now..lifetime.renew_at();
    let (token, details) = (AccessToken::from(token), UserDetails::default());
    let (origin, epoch) = (EntryOrigin::Stored, cache.epoch());
    CacheEntry::new(id, &token, lifetime, &details, validity, origin, epoch)
}

fn fresh_token(cache: &Cache, now: Timestamp) -> Option<String> {
    let entry = cache.fresh("oA", now)?;
    Some(entry.secret().expose().to_owned())
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
fn replaced_entries_stay_and_deleted_ones_go() {
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

/// Returns an id whose entry belongs to the same shard as the entry of `oA`.
fn id_in_same_shard(cache: &Cache) -> String {
    let shard = |id: &str| cache.key(id).as_u64() % cache.shards.len() as u64;
    let mut others = (0..).map(|number| format!("o{number}"));
    others.find(|other| shard(other) == shard("oA")).unwrap()
}

#[test]
fn events_of_other_ids_in_a_shard_do_not_interfere() {
    let cache = Cache::new(100, TTL);
    let other = id_in_same_shard(&cache);
    let version = |token| Some(entry_of_token(&cache, token, NOW).version());
    // While the user logs in, other users of the shard log in and out, in this process and in
    // others.
    let stamp = cache.invalidate("oA");
    cache.on_invalidation(&other, version("t9"));
    cache.on_invalidation("oA", version("t1"));
    cache.on_invalidation(&other, None);
    cache.invalidate(&other);
    cache.complete_write("oA", Some(&entry_of_token(&cache, "t1", NOW)), NOW, &stamp);
    assert_eq!(fresh_token(&cache, NOW).as_deref(), Some("t1"));
    // While a request reads the store, another user of the shard logs in.
    let stamp = cache.stamp("oA");
    cache.on_invalidation(&other, version("t1"));
    assert!(cache.is_unchanged(&stamp));
    cache.insert_if_unchanged(entry_of_token(&cache, "t2", NOW), &stamp);
    assert_eq!(fresh_token(&cache, NOW).as_deref(), Some("t2"));
}

#[test]
fn older_entries_are_rejected_in_a_busy_shard() {
    for events in 0..2 * TRACKED_WRITES {
        let cache = Cache::new(100, TTL);
        let (other, older) = (id_in_same_shard(&cache), entry_of_token(&cache, "t1", NOW));
        let stamps = [(); 3].map(|()| cache.stamp("oA"));
        cache.on_invalidation("oA", Some(entry_of_token(&cache, "t2", NOW).version()));
        for _ in 0..events {
            cache.on_invalidation(&other, Some(older.version()));
        }
        assert!(!cache.is_unchanged(&stamps[0]));
        cache.insert_if_unchanged(older.clone(), &stamps[0]);
        assert_eq!(fresh_token(&cache, NOW), None, "{events}");
        cache.insert_absent_if_unchanged("oA", NOW, &stamps[1]);
        assert!(!cache.is_known_absent("oA", NOW), "{events}");
        cache.complete_write("oA", Some(&older), NOW, &stamps[2]);
        assert_eq!(fresh_token(&cache, NOW), None, "{events}");
    }
}

/// In this test all reads take their stamps before the first reply arrives.
#[test]
fn ten_thousand_concurrent_reads_are_all_cached() {
    let cache = Cache::new(20_000, TTL);
    let ids: Vec<String> = (0..10_000).map(|number| format!("o{number}")).collect();
    let stamps: Vec<VersionStamp> = ids.iter().map(|id| cache.stamp(id)).collect();
    for (id, stamp) in ids.iter().zip(&stamps) {
        cache.insert_if_unchanged(entry_of(&cache, id, "t1", NOW), stamp);
    }
    // By chance a shard may have more concurrent reads than its history holds. Some of them are not
    // cached.
    let missing = ids.iter().filter(|id| cache.fresh(id, NOW).is_none());
    assert!(missing.count() < 100);
}

#[test]
fn a_read_is_cached_only_if_it_matches_the_invalidation() {
    let cache = Cache::new(100, TTL);
    let stamp = cache.stamp("oA");
    cache.on_invalidation("oA", Some(entry_of_token(&cache, "t2", NOW).version()));
    cache.insert_if_unchanged(entry_of_token(&cache, "t1", NOW), &stamp);
    assert_eq!(
        fresh_token(&cache, NOW),
        None,
        "the read began before the write"
    );
    cache.insert_if_unchanged(entry_of_token(&cache, "t2", NOW), &stamp);
    assert_eq!(fresh_token(&cache, NOW).as_deref(), Some("t2"));

    let stamp = cache.stamp("oA");
    cache.on_invalidation("oA", None);
    cache.insert_if_unchanged(entry_of_token(&cache, "t2", NOW), &stamp);
    assert_eq!(
        fresh_token(&cache, NOW),
        None,
        "the credential was deleted meanwhile"
    );

    // After two invalidations, a read is cached only if it found the version of the second one.
    let stamp = cache.stamp("oA");
    cache.on_invalidation("oA", Some(entry_of_token(&cache, "t3", NOW).version()));
    cache.on_invalidation("oA", Some(entry_of_token(&cache, "t4", NOW).version()));
    cache.insert_if_unchanged(entry_of_token(&cache, "t3", NOW), &stamp);
    assert_eq!(fresh_token(&cache, NOW), None);
    cache.insert_if_unchanged(entry_of_token(&cache, "t4", NOW), &stamp);
    assert_eq!(fresh_token(&cache, NOW).as_deref(), Some("t4"));

    // After a local write and an invalidation, no read is cached, because the order of the local
    // and the remote write is unknown.
    let stamp = cache.stamp("oA");
    cache.invalidate("oA");
    cache.on_invalidation("oA", Some(entry_of_token(&cache, "t4", NOW).version()));
    cache.insert_if_unchanged(entry_of_token(&cache, "t4", NOW), &stamp);
    assert_eq!(fresh_token(&cache, NOW), None);
}

#[test]
fn invalidation_of_an_own_write_keeps_the_entry() {
    let cache = cache_with("t1");
    let t2 = entry_of_token(&cache, "t2", NOW);
    for invalidation_first in [true, false] {
        let stamp = cache.invalidate("oA");
        if invalidation_first {
            cache.on_invalidation("oA", Some(t2.version()));
        }
        cache.complete_write("oA", Some(&t2), NOW, &stamp);
        cache.on_invalidation("oA", Some(t2.version()));
        assert_eq!(
            fresh_token(&cache, NOW).as_deref(),
            Some("t2"),
            "{invalidation_first}"
        );
    }
    // Another process writes between the stamp and the end of the local write. Nothing is cached,
    // because only the store knows the order of the two writes.
    let stamp = cache.invalidate("oA");
    cache.on_invalidation("oA", Some(t2.version()));
    cache.on_invalidation("oA", Some(entry_of_token(&cache, "t3", NOW).version()));
    cache.complete_write("oA", Some(&t2), NOW, &stamp);
    assert_eq!(fresh_token(&cache, NOW), None);
}

#[test]
fn a_late_invalidation_restores_no_older_entry() {
    let cache = cache_with("t2");
    let stamp = cache.stamp("oA");
    cache.on_invalidation("oA", Some(entry_of_token(&cache, "t1", NOW).version()));
    assert_eq!(fresh_token(&cache, NOW), None);
    cache.insert_if_unchanged(entry_of_token(&cache, "t2", NOW), &cache.stamp("oA"));
    cache.insert_if_unchanged(entry_of_token(&cache, "t0", NOW), &stamp);
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
    // If the wall clock is set back, a heartbeat from the future confirms nothing.
    assert!(fresh_token(&cache, NOW.saturating_add(secs(100))).is_none());
    cache.mark_unsynced();
    assert!(fresh_token(&cache, NOW.saturating_add(secs(6_250))).is_none());
}

#[test]
fn a_new_epoch_invalidates_entries_and_running_reads() {
    let cache = cache_with("t1");
    cache.mark_synced(NOW);
    let stamp = cache.stamp("oA");
    cache.invalidate_all();
    assert_eq!(fresh_token(&cache, NOW), None);
    cache.insert_if_unchanged(entry_of_token(&cache, "t1", NOW), &stamp);
    assert_eq!(
        fresh_token(&cache, NOW),
        None,
        "the read began in the earlier epoch"
    );
    assert!(
        cache.unexpired("oA", NOW).is_some(),
        "the entry stays for outages"
    );
    cache.insert_if_unchanged(entry_of_token(&cache, "t2", NOW), &cache.stamp("oA"));
    assert_eq!(fresh_token(&cache, NOW).as_deref(), Some("t2"));
    assert!(
        fresh_token(&cache, NOW.saturating_add(secs(61))).is_none(),
        "no heartbeat in this epoch"
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

/// Returns an id with the length of an openid.
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
    // The shards of `quick_cache` fill at different rates, and a full shard evicts entries.
    assert!(cache.len() > USERS * 98 / 100, "{}", cache.len());
    let each = counted.bytes_current as usize / cache.len();
    assert!(each <= 240, "{each} bytes per user");
}

#[test]
fn capacity_is_bounded_and_used_entries_stay() {
    let cache = filled_cache(1_000, 1_000);
    let frequent: Vec<String> = (0..100).map(id).collect();
    for _ in 0..3 {
        for id in &frequent {
            cache.fresh(id, NOW);
        }
    }
    let before = frequent.iter().filter(|id| cache.fresh(id, NOW).is_some());
    let before = before.count();
    assert!(before > 80, "{before}");
    for at in 1_000..11_000 {
        let id = id(at);
        cache.insert_if_unchanged(full_entry(&id), &cache.stamp(&id));
    }
    assert!(cache.len() <= 1_000, "{}", cache.len());
    let after = frequent.iter().filter(|id| cache.fresh(id, NOW).is_some());
    let after = after.count();
    assert!(after > before * 8 / 10, "{after} of {before} stayed");
}

#[test]
fn ids_with_the_same_key_are_kept_apart() {
    let cache = Cache::new(10, TTL);
    // Two ids with one key are too rare to find. The test therefore inserts the entry of `b` under
    // the key of `a`.
    cache.entries.insert(cache.key("a"), full_entry("b"));
    assert!(cache.fresh("a", NOW).is_none());
    assert!(cache.unexpired("a", NOW).is_none());
    cache.invalidate_if_token("a", full_entry("b").secret());
    cache.invalidate("a");
    assert_eq!(cache.len(), 1, "the entry of the other id stays");
}
