//! Tests of the memory that an idle account takes.

use tower_wechat::{AccountTokens, MemoryStore, Tickets, UserTokens, WechatClient};

/// Maximum memory of an idle account with all its credentials: 40 KB, and 12 KB more for each core,
/// because the caches have shards for each core. Measured on a machine with two cores: 49 KB.
fn max_bytes() -> i64 {
    let cores = std::thread::available_parallelism().unwrap().get();
    40_000 + 12_000 * i64::try_from(cores).unwrap()
}

/// Returns the value that `create` returns, and the bytes that the value takes.
fn measured<T>(create: impl FnOnce() -> T) -> (T, i64) {
    let mut value = None;
    let measured = allocation_counter::measure(|| value = Some(create()));
    (value.unwrap(), measured.bytes_current)
}

#[tokio::test]
async fn an_idle_account_takes_little_memory() {
    let first = WechatClient::builder("wx0", "secret").api_url("http://127.0.0.1:1");
    let first = first.build().unwrap();
    let store = MemoryStore::new();
    // Tables that all accounts share grow during the first rounds.
    let mut accounts = Vec::new();
    let mut taken = Vec::new();
    for number in 0..8 {
        let ((account, tokens), bytes) = measured(|| {
            let wechat = first.for_account(format!("wx{number}"), "secret").unwrap();
            let users = UserTokens::new(wechat.clone(), store.clone());
            let tokens = AccountTokens::new(wechat, store.clone());
            let tickets = Tickets::new(&tokens, ["h5.example.com"]).unwrap();
            ((users, tickets), tokens)
        });
        accounts.push((account, tokens));
        taken.push(bytes);
    }
    let least = taken.iter().min().unwrap();
    assert!(*least <= max_bytes(), "{taken:?}");
}
