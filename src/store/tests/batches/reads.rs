//! Property test of reads: each read in a batch ends as the same read alone.

use std::cell::Cell;

use ::redis::Commands;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::{Builder, Runtime};

use super::super::sealing::sealing_keys;
use super::*;
use crate::clock::Timestamp;

/// Values that no version of this crate has written.
const UNREADABLE: [&[u8]; 6] = [
    b"",
    b"tok#",
    b"tok#12x",
    b"\xff\x00\xfe",
    b"#0#s1#ID#AAAA",
    b"\xac\xed\x00\x05t\x00\x06tok#12",
];

/// Values as another service writes them, without ids: a token, a refresh token and a record.
const FOREIGN: [&str; 3] = [
    "tok#4000000000000",
    "ref#4000000900000",
    "1#tok#4000000000000#4000000900000#ref#4000000900000",
];

/// The numbers of the reads that may have unreadable values: few, because a process logs few
/// unreadable values in a minute, and other tests expect lines about theirs.
const WITH_UNREADABLE: [usize; 3] = [3, 13, 23];

/// The numbers of the reads that may have huge values.
const WITH_HUGE: [usize; 2] = [5, 25];

/// Length of a huge value: 2 MiB.
const HUGE: usize = 2 << 20;

/// What Redis holds for one credential.
#[derive(Debug, Clone)]
enum Content {
    Nothing,
    /// A record that this crate has written, with these parts.
    Record {
        token: bool,
        refresh: bool,
        ids: bool,
    },
    /// The values of another service.
    Foreign,
    /// An unreadable value in the first or second key or field, or in both.
    Unreadable([bool; 2]),
    /// A value of [`HUGE`] bytes in the first key or field.
    Huge,
    /// A list in place of a string key.
    List,
}

/// One read, and what Redis holds for it.
#[derive(Debug, Clone)]
struct Read {
    kind: CredentialKind,
    account: usize,
    content: Content,
    /// The time of the user's last logout, if there is one.
    revoked_at: Option<i64>,
    manner: Manner,
}

/// What a case has in common for all of its reads.
#[derive(Debug, Clone)]
struct Server {
    layout: Layout,
    is_sealed: bool,
    /// The account whose hash of access tokens (or of refresh tokens) is no hash.
    without_hash: Option<(usize, bool)>,
    /// `true` if the Redis user of the store may not read the keys of the last account.
    is_restricted: bool,
}

fn content() -> impl Strategy<Value = Content> {
    let record = any::<(bool, bool, bool)>();
    prop_oneof![
        2 => Just(Content::Nothing),
        6 => record.prop_map(|(token, refresh, ids)| Content::Record { token, refresh, ids }),
        4 => Just(Content::Foreign),
        1 => Just(Content::List),
    ]
}

fn read() -> impl Strategy<Value = Read> {
    let kind = prop_oneof![
        6 => Just(CredentialKind::User),
        1 => select(&CredentialKind::ALL[..]),
    ];
    const MANNERS: [Manner; 3] = [Manner::Load, Manner::VisitAndAccept, Manner::VisitAndReject];
    let revoked_at = prop::option::of(Just(1_700_000_000_000));
    (
        kind,
        0..ACCOUNTS.len(),
        content(),
        revoked_at,
        select(&MANNERS[..]),
    )
        .prop_map(|(kind, account, content, revoked_at, manner)| Read {
            kind,
            account,
            content,
            revoked_at,
            manner,
        })
}

fn server() -> impl Strategy<Value = Server> {
    let without_hash = prop::option::weighted(0.3, (0..ACCOUNTS.len(), any::<bool>()));
    let restricted = prop::bool::weighted(0.2);
    (select(&BOTH[..]), any::<bool>(), without_hash, restricted).prop_map(
        |(layout, is_sealed, without_hash, is_restricted)| Server {
            layout,
            is_sealed,
            without_hash,
            is_restricted,
        },
    )
}

/// Returns a case: more than 40 reads, of which a few have unreadable or huge values.
fn case() -> impl Strategy<Value = (Server, Vec<Read>)> {
    let reads = prop::collection::vec(read(), 41..70);
    let huge = any::<[bool; 2]>();
    (server(), reads, any::<[[bool; 2]; 3]>(), huge).prop_map(
        |(server, mut reads, unreadable, huge)| {
            let unreadable = unreadable.map(Content::Unreadable);
            let mut special: Vec<_> = WITH_UNREADABLE.into_iter().zip(unreadable).collect();
            let huge = WITH_HUGE
                .into_iter()
                .zip(huge)
                .filter(|(_, is_huge)| *is_huge);
            special.extend(huge.map(|(at, _)| (at, Content::Huge)));
            for (at, content) in special {
                reads[at].kind = CredentialKind::User;
                reads[at].account = 0;
                reads[at].content = content;
            }
            (server, reads)
        },
    )
}

impl Read {
    /// Returns the slot of this read. Several reads of an account share the slot of its token.
    fn slot(&self, number: usize) -> CredentialSlot {
        let id = match self.kind.belongs_to_account() {
            true => String::new(),
            false => format!("o{number}:# \u{5f20}"),
        };
        let mut slot = slot(self.kind, &id);
        slot.key.app = AppId::new(ACCOUNTS[self.account]).unwrap();
        slot
    }
}

/// Returns the keys of a slot, each with its field in a hash.
fn keys(layout: Layout, slot: &CredentialSlot) -> Vec<(String, Option<String>)> {
    let (app, id) = (&slot.key.app, slot.key.id.to_string());
    let key = match (slot.key.kind, layout) {
        (CredentialKind::User, Layout::Hashes) => {
            let hashes = ["user.wxUserAccessToken", "user.wxUserRefreshToken"];
            let fields = hashes.map(|hash| (format!("{hash}.{app}"), Some(id.clone())));
            return fields.into();
        }
        (CredentialKind::User, Layout::Keys) => format!("wechat:{app}:user:{id}"),
        (CredentialKind::SnapshotUser, _) => format!("wechat:{app}:snapshot:{id}"),
        (CredentialKind::AccountToken, Layout::Hashes) => format!("sys.wxAccessToken.{app}"),
        (CredentialKind::JsapiTicket, Layout::Hashes) => format!("sys.wxJsapiTicket.{app}"),
        (CredentialKind::ComponentToken, _) => format!("wechat:{app}:platform:access_token"),
        (kind, Layout::Keys) => format!("wechat:{app}:account:{}", kind.as_str()),
    };
    vec![(key, None)]
}

impl Server {
    async fn connect(&self, url: &str) -> RedisStore {
        let builder = RedisStore::builder(url).layout(self.layout);
        let builder = builder.names(RedisNames::default().with_appid());
        let builder = match self.is_sealed {
            true => builder.sealing(sealing_keys("a")),
            false => builder,
        };
        builder.connect().await.unwrap()
    }

    /// Writes the content of all reads.
    async fn fill(&self, server: &RedisServer, reads: &[(CredentialSlot, &Read)]) {
        let mut connection = server.connection();
        let _: () = operate(&mut connection, &["FLUSHALL"]);
        let store = self.connect(&server.url()).await;
        for (number, (slot, read)) in reads.iter().enumerate() {
            let keys = keys(self.layout, slot);
            let mut put = |at: usize, bytes: &[u8]| match keys.get(at) {
                Some((key, Some(field))) => connection.hset(key, field, bytes).unwrap(),
                Some((key, None)) => connection.set(key, bytes).unwrap(),
                None => {}
            };
            match &read.content {
                Content::Record {
                    token,
                    refresh,
                    ids,
                } => {
                    let mut record = record(slot.key.kind, "tok");
                    record.token = record.token.filter(|_| *token);
                    record.refresh = record.refresh.filter(|_| *refresh);
                    if !ids {
                        record.details = UserDetails::default();
                    }
                    store.overwrite(slot, &record).await.unwrap();
                }
                Content::Foreign if slot.key.kind == CredentialKind::User => match self.layout {
                    Layout::Hashes => (0..2).for_each(|at| put(at, FOREIGN[at].as_bytes())),
                    Layout::Keys => put(0, FOREIGN[2].as_bytes()),
                },
                Content::Foreign => put(0, FOREIGN[0].as_bytes()),
                Content::Unreadable(parts) => {
                    for at in (0..2).filter(|at| parts[*at]) {
                        put(at, UNREADABLE[(number / 10 * 2 + at) % UNREADABLE.len()]);
                    }
                }
                Content::Huge => put(0, &vec![b'x'; HUGE]),
                Content::List if keys[0].1.is_none() => {
                    let _: () = connection.del(&keys[0].0).unwrap();
                    let _: () = connection.rpush(&keys[0].0, "a list").unwrap();
                }
                Content::Nothing | Content::List => {}
            }
            if let Some(at) = read.revoked_at {
                let at = Timestamp::from_millis(at);
                store.set_revoked_at(&slot.key, at, LEASE).await.unwrap();
            }
        }
        if let Some((account, is_access)) = self.without_hash {
            let hash = if is_access {
                "user.wxUserAccessToken"
            } else {
                "user.wxUserRefreshToken"
            };
            let key = format!("{hash}.{}", ACCOUNTS[account]);
            let _: () = connection.set(key, "no hash").unwrap();
        }
    }

    /// Returns the URL for the store whose reads are compared.
    fn url(&self, server: &RedisServer) -> String {
        match self.is_restricted {
            true => create_user(
                server,
                &["+@all", "&*", "~*wx1*", "~*wx2*", "~wechat:[^w]*"],
            ),
            false => server.url(),
        }
    }
}

/// Reads all slots at the same time, and each of them alone. Returns both ends of each read.
async fn both_ends(
    case: &Server,
    server: &RedisServer,
    reads: &[(CredentialSlot, &Read)],
) -> (Vec<ReadEnd>, Vec<ReadEnd>) {
    let url = case.url(server);
    let minute = Duration::from_secs(60);
    let store = case.connect(&url).await;
    let all = reads.iter();
    let all = all.map(|(slot, read)| read.manner.read(&store, slot, minute));
    let together = join_all(all).await;
    let store = case.connect(&url).await;
    let mut alone = Vec::new();
    for (slot, read) in reads {
        alone.push(read.manner.read(&store, slot, minute).await);
    }
    (together, alone)
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_read_in_a_batch_ends_as_alone() {
    let (server, runtime) = (RedisServer::start(), runtime());
    let config = Config {
        cases: 32,
        max_shrink_iters: 256,
        failure_persistence: None,
        ..Config::default()
    };
    let with_batches = Cell::new(0);
    let check = |(case, reads): (Server, Vec<Read>)| {
        let slots = reads.iter().enumerate();
        let reads: Vec<_> = slots.map(|(at, read)| (read.slot(at), read)).collect();
        runtime.block_on(case.fill(&server, &reads));
        let before = server.calls("hmget");
        let (together, alone) = runtime.block_on(both_ends(&case, &server, &reads));
        for ((slot, _), (together, alone)) in reads.iter().zip(together.iter().zip(&alone)) {
            prop_assert_eq!(together, alone, "{:?}", slot.key);
        }
        with_batches.set(with_batches.get() + u32::from(server.calls("hmget") > before));
        Ok(())
    };
    TestRunner::new(config).run(&case(), check).unwrap();
    // Nearly every case in the hash layout has more than eight reads of users.
    assert!(with_batches.get() >= 8, "{} cases", with_batches.get());
}

/// A value under the key of a logout that is no number is an error of that read only.
#[tokio::test]
async fn a_bad_time_of_a_logout_fails_one_read() {
    let server = RedisServer::start();
    for layout in BOTH {
        let (store, users) = (connect_redis(&server, layout).await, users());
        let mut connection = server.connection();
        for user in &users {
            let mut record = record_of(user, "t1");
            record.details = UserDetails::default();
            store.overwrite(user, &record).await.unwrap();
        }
        let bad = format!("wechat:wx1:revoked:user:{}", users[20].key.id);
        let _: () = connection.set(bad, "yesterday").unwrap();
        let mut read = load_all(&store, &users).await;
        let error = read.remove(20).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "{error}");
        let others: Vec<_> = [&users[..20], &users[21..]].concat();
        assert_all_read(&others, read, "t1");
        // A read alone fails too, and others succeed at once.
        let error = store.load(&users[20]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "{error}");
        assert_all_read(&others, load_all(&store, &others).await, "t1");
    }
}
