//! Random steps of renewals, and what Redis holds before them.

use ::redis::Commands;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::sealing::sealing_keys;
use super::*;

/// What Redis holds for a credential before its step.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Content {
    Nothing,
    Record,
    /// A value that cannot be read. Only a few steps have one, because a process logs few
    /// unreadable values in a minute, and other tests expect lines about theirs.
    Unreadable,
    /// A list in place of a string key.
    List,
    /// A tombstone that names the refresh token of the former record.
    Tombstone,
    /// A record, and a tombstone that names its refresh token.
    AnnouncedDeletion,
}

/// The owner of the lease before a step.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Lease {
    Free,
    Own,
    Foreign,
    /// A list in place of the lease.
    List,
}

/// The values that a step expects.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Expects {
    Stored,
    OtherValues,
    NoValues,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Action {
    Acquire,
    AnnounceDeletion,
    /// Commits a record, with another refresh token or with the same one.
    Commit {
        rotates: bool,
    },
    /// Commits an empty record.
    CommitNothing,
    CommitDeletion,
}

/// One step, and what Redis holds before it.
#[derive(Debug, Clone)]
pub(super) struct Step {
    kind: CredentialKind,
    account: usize,
    content: Content,
    lease: Lease,
    expects: Expects,
    action: Action,
}

/// What a case has in common for all of its steps.
#[derive(Debug, Clone)]
pub(super) struct Stores {
    pub(super) layout: Layout,
    pub(super) dual_write: Option<Layout>,
    pub(super) is_sealed: bool,
    pub(super) may_publish: bool,
    /// `true` if the hash of access tokens of the last account is no hash.
    pub(super) lacks_hash: bool,
}

/// A step with all that both servers need to run it.
pub(super) struct Prepared {
    pub(super) slot: CredentialSlot,
    pub(super) owner: LeaseOwner,
    pub(super) expected: Expected,
    pub(super) record: Record,
    pub(super) action: Action,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        8 => Just(CredentialKind::User),
        1 => Just(CredentialKind::SnapshotUser),
    ];
    let content = prop_oneof![
        1 => Just(Content::Nothing),
        16 => Just(Content::Record),
        6 => Just(Content::Unreadable),
        1 => Just(Content::List),
        1 => Just(Content::Tombstone),
        1 => Just(Content::AnnouncedDeletion),
    ];
    let lease = prop_oneof![
        6 => Just(Lease::Free),
        8 => Just(Lease::Own),
        2 => Just(Lease::Foreign),
        1 => Just(Lease::List),
    ];
    let expects = prop_oneof![
        8 => Just(Expects::Stored),
        1 => Just(Expects::OtherValues),
        1 => Just(Expects::NoValues),
    ];
    let action = prop_oneof![
        6 => Just(Action::Acquire),
        1 => Just(Action::AnnounceDeletion),
        6 => any::<bool>().prop_map(|rotates| Action::Commit { rotates }),
        1 => Just(Action::CommitNothing),
        1 => Just(Action::CommitDeletion),
    ];
    (kind, 0..ACCOUNTS.len(), content, lease, expects, action).prop_map(
        |(kind, account, content, lease, expects, action)| Step {
            kind,
            account,
            content,
            lease,
            expects,
            action,
        },
    )
}

fn stores() -> impl Strategy<Value = Stores> {
    (
        select(&BOTH[..]),
        prop::bool::weighted(0.25),
        any::<bool>(),
        prop::bool::weighted(0.75),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(layout, is_dual, is_sealed, may_publish, lacks_hash)| {
            let other = BOTH.into_iter().find(|other| *other != layout);
            Stores {
                layout,
                dual_write: other.filter(|_| is_dual),
                is_sealed,
                may_publish,
                lacks_hash,
            }
        })
}

/// Returns a case: more than 40 steps of different users, and steps for two tokens of an account.
pub(super) fn case() -> impl Strategy<Value = (Stores, Vec<Step>)> {
    (stores(), prop::collection::vec(step(), 41..70)).prop_map(|(stores, mut steps)| {
        let account = [CredentialKind::AccountToken, CredentialKind::JsapiTicket];
        for (at, kind) in account.into_iter().enumerate() {
            steps[5 + 10 * at].kind = kind;
        }
        for (at, step) in steps.iter_mut().enumerate() {
            match [4, 14, 24].contains(&at) {
                true => (step.kind, step.account) = (CredentialKind::User, 0),
                false if step.content == Content::Unreadable => step.content = Content::Nothing,
                false => {}
            }
        }
        (stores, steps)
    })
}

impl Step {
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

/// Returns the string key of a slot in this layout, or `None` for the fields of a user.
fn string_key(layout: Layout, slot: &CredentialSlot) -> Option<String> {
    let (app, id) = (&slot.key.app, &slot.key.id);
    Some(match (slot.key.kind, layout) {
        (CredentialKind::User, Layout::Hashes) => return None,
        (CredentialKind::User, Layout::Keys) => format!("wechat:{app}:user:{id}"),
        (CredentialKind::SnapshotUser, _) => format!("wechat:{app}:snapshot:{id}"),
        (CredentialKind::JsapiTicket, Layout::Hashes) => format!("sys.wxJsapiTicket.{app}"),
        (_, Layout::Hashes) => format!("sys.wxAccessToken.{app}"),
        (kind, Layout::Keys) => format!("wechat:{app}:account:{}", kind.as_str()),
    })
}

impl Stores {
    pub(super) async fn connect(&self, url: &str) -> RedisStore {
        let builder = RedisStore::builder(url).layout(self.layout);
        let builder = builder.names(RedisNames::default().with_appid());
        let builder = match self.is_sealed {
            true => builder.sealing(sealing_keys("a")),
            false => builder,
        };
        let builder = match self.dual_write {
            Some(copy) => builder.dual_write(copy),
            None => builder,
        };
        builder.connect().await.unwrap()
    }

    /// Returns the keys of the leases of a slot.
    fn lease_keys(&self, slot: &CredentialSlot) -> Vec<String> {
        let (app, id) = (&slot.key.app, &slot.key.id);
        let layouts = [Some(self.layout), self.dual_write].into_iter().flatten();
        let key = |layout| match string_key(layout, slot) {
            Some(key) => format!("wechat:{app}:lease:{{{key}}}"),
            None => format!("wechat:{app}:lease:user:{id}"),
        };
        layouts.map(key).collect()
    }

    /// Writes the content of a step to the first server, and returns the step.
    pub(super) async fn prepare(
        &self,
        server: &RedisServer,
        store: &RedisStore,
        step: &Step,
        number: usize,
    ) -> Prepared {
        let (slot, owner) = (step.slot(number), LeaseOwner::unique());
        let mut connection = server.connection();
        let mut expected = store.load(&slot).await.unwrap().expected;
        if !matches!(step.content, Content::Nothing | Content::List) {
            store
                .overwrite(&slot, &self.first_record(&slot))
                .await
                .unwrap();
            expected = store.load(&slot).await.unwrap().expected;
        }
        let deleter = LeaseOwner::unique();
        match (step.content, string_key(self.layout, &slot)) {
            (Content::Unreadable, key) => {
                match key {
                    Some(key) => {
                        let () = connection.set(key, "unreadable").unwrap();
                    }
                    None => {
                        let hash = format!("user.wxUserRefreshToken.{}", slot.key.app);
                        let () = connection.hset(hash, &*slot.key.id, "unreadable").unwrap();
                    }
                }
                expected = store.load(&slot).await.unwrap().expected;
            }
            (Content::List, Some(key)) => connection.rpush(key, "a list").unwrap(),
            (Content::Tombstone, _) => {
                let deleted = store.commit_deletion(&slot, &expected, &deleter).await;
                assert!(matches!(deleted.unwrap(), CommitResult::Committed));
            }
            (Content::AnnouncedDeletion, _) => {
                let announced = store
                    .announce_deletion(&slot, &expected, &deleter, LEASE)
                    .await;
                assert!(matches!(announced.unwrap(), LeaseResult::Acquired));
                store.release_lease(&slot, &deleter).await.unwrap();
            }
            _ => {}
        }
        for key in self.lease_keys(&slot) {
            let _: () = match step.lease {
                Lease::Free => continue,
                Lease::List => connection.rpush(key, "a list").unwrap(),
                Lease::Own => connection.pset_ex(key, owner.as_str(), 600_000).unwrap(),
                Lease::Foreign => connection.pset_ex(key, "another", 600_000).unwrap(),
            };
        }
        match step.expects {
            Expects::Stored => {}
            Expects::NoValues => expected.0.iter_mut().for_each(|value| *value = None),
            // A value that can be read, because a process logs few unreadable values in a minute.
            Expects::OtherValues => {
                let is_record = expected.0.len() == 1 && !slot.key.kind.belongs_to_account();
                let other = match is_record {
                    true => "1#tok#4000000000000#4000000900000##",
                    false => "tok#4000000000000",
                };
                expected.0[0] = Some(other.as_bytes().to_vec().into());
            }
        }
        let mut record = record_of(&slot, "t2");
        if slot.key.kind != CredentialKind::User {
            record = super::record(slot.key.kind, "t2");
        } else if step.action == (Action::Commit { rotates: false }) {
            record.refresh = record_of(&slot, "t1").refresh;
        }
        Prepared {
            slot,
            owner,
            expected,
            record,
            action: step.action,
        }
    }

    /// Replaces a hash by a string, if the case wants so.
    pub(super) fn damage(&self, server: &RedisServer) {
        if self.lacks_hash {
            let key = format!("user.wxUserAccessToken.{}", ACCOUNTS[2]);
            let _: () = server.connection().set(key, "no hash").unwrap();
        }
    }

    fn first_record(&self, slot: &CredentialSlot) -> Record {
        match slot.key.kind {
            CredentialKind::User => record_of(slot, "t1"),
            kind => record(kind, "t1"),
        }
    }
}
