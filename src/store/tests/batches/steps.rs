//! Property test of steps: leases and commits in a batch end as the same steps alone.

use std::cell::Cell;

use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::{Builder, Runtime};

use super::step_cases::{Action, Prepared, Step, Stores, case};
use super::twins::Twins;
use super::*;

/// The end of a step in a form that can be compared.
#[derive(Debug, PartialEq)]
enum End {
    Acquired,
    Busy,
    Committed,
    LeaseLost,
    Conflict(Record, Expected),
    Failed(ErrorKind, String),
}

impl Prepared {
    async fn run(&self, store: &RedisStore) -> End {
        let (slot, expected, owner) = (&self.slot, &self.expected, &self.owner);
        let long = Duration::from_secs(600);
        let committed = match self.action {
            Action::Acquire => {
                return lease_end(store.acquire_lease(slot, expected, owner, long).await);
            }
            Action::AnnounceDeletion => {
                return lease_end(store.announce_deletion(slot, expected, owner, long).await);
            }
            Action::Commit { .. } => store.commit(slot, expected, &self.record, owner).await,
            Action::CommitNothing => {
                let nothing = Record::default();
                store.commit(slot, expected, &nothing, owner).await
            }
            Action::CommitDeletion => store.commit_deletion(slot, expected, owner).await,
        };
        match committed {
            Ok(CommitResult::Committed) => End::Committed,
            Ok(CommitResult::LeaseLost) => End::LeaseLost,
            Ok(CommitResult::Conflict(now)) => End::Conflict(now.record, now.expected),
            Err(error) => failed(&error),
        }
    }
}

fn lease_end(result: Result<LeaseResult, Error>) -> End {
    match result {
        Ok(LeaseResult::Acquired) => End::Acquired,
        Ok(LeaseResult::Busy) => End::Busy,
        Ok(LeaseResult::Conflict(now)) => End::Conflict(now.record, now.expected),
        Err(error) => failed(&error),
    }
}

/// Returns the end of a step that failed. The text of the error names no server.
fn failed(error: &Error) -> End {
    let text = error.to_string();
    let words = text
        .split(' ')
        .filter(|word| !word.starts_with("127.0.0.1:"));
    End::Failed(error.kind(), words.collect::<Vec<_>>().join(" "))
}

/// Runs all steps at the same time on the first server, and one after another on the second one.
/// Returns both ends of each step.
async fn both_ends(stores: &Stores, urls: &[String; 2], steps: &[Prepared]) -> Vec<(End, End)> {
    let store = stores.connect(&urls[0]).await;
    let together = join_all(steps.iter().map(|step| step.run(&store))).await;
    let store = stores.connect(&urls[1]).await;
    let mut ends = Vec::new();
    for (step, together) in steps.iter().zip(together) {
        ends.push((together, step.run(&store).await));
    }
    ends
}

/// Checks that every credential is read as the same record from both servers, in each layout that
/// the steps have written.
async fn assert_equal_records(stores: &Stores, twins: &Twins, steps: &[Prepared]) {
    let layouts = [Some(stores.layout), stores.dual_write];
    for layout in layouts.into_iter().flatten() {
        let reader = Stores {
            layout,
            dual_write: None,
            ..stores.clone()
        };
        let (first, second) = (
            reader.connect(&twins.together.url()).await,
            reader.connect(&twins.alone.url()).await,
        );
        for step in steps {
            let both = [first.load(&step.slot).await, second.load(&step.slot).await];
            let [first, second] = both.map(|read| read.map(|stored| stored.record).ok());
            assert_eq!(first, second, "{layout:?}: {:?}", step.slot.key);
        }
    }
}

/// Runs one case. Returns `true` if steps were sent in batches.
async fn run_case(twins: &Twins, stores: &Stores, steps: &[Step]) -> bool {
    twins.clear();
    let store = stores.connect(&twins.together.url()).await;
    let mut prepared = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        prepared.push(stores.prepare(&twins.together, &store, step, number).await);
    }
    stores.damage(&twins.together);
    twins.copy();
    let urls = match stores.may_publish {
        true => twins.urls(),
        false => twins.create_users(&["~*", "&*", "+@all", "-publish"]),
    };
    let mut subscribers = twins.subscribe();
    let batches = twins.together.calls("mget");
    for (step, (together, alone)) in prepared
        .iter()
        .zip(both_ends(stores, &urls, &prepared).await)
    {
        let (key, action) = (&step.slot.key, step.action);
        assert_eq!(together, alone, "{action:?} of {key:?}");
    }
    // The nonces of sealed values are random.
    let sealed = |value: &str| value.starts_with("#0#s1#");
    let differences = twins.differences(|_, first, second| {
        first == second || (sealed(first) && sealed(second) && first.len() == second.len())
    });
    assert_eq!(differences, Vec::<String>::new());
    let [together, alone] = subscribers.each_mut().map(|one| one.messages("PUBLISH"));
    assert_eq!(together, alone);
    assert_equal_records(stores, twins, &prepared).await;
    assert_eq!(twins.alone.calls("mget"), 0, "steps were sent alone");
    twins.together.calls("mget") > batches
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_step_in_a_batch_ends_as_alone() {
    let (twins, runtime) = (Twins::start(), runtime());
    let config = Config {
        cases: 32,
        max_shrink_iters: 256,
        failure_persistence: None,
        ..Config::default()
    };
    let with_batches = Cell::new(0);
    let check = |(stores, steps): (Stores, Vec<Step>)| {
        let has_batches = runtime.block_on(run_case(&twins, &stores, &steps));
        with_batches.set(with_batches.get() + u32::from(has_batches));
        Ok(())
    };
    TestRunner::new(config).run(&case(), check).unwrap();
    assert!(with_batches.get() >= 8, "{} cases", with_batches.get());
}
