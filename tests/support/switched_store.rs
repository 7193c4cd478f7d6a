//! The example `sessions` in this process, with a session store whose calls a test can make fail.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower_sessions::session::{Id, Record};
use tower_sessions::session_store::{Error, Result};
use tower_sessions::{MemoryStore as Sessions, SessionStore};
use tower_wechat::simulator::Simulator;
use tower_wechat::{CookieKeys, Login, MemoryStore, UserTokens};

use super::sessions::application;

/// A session store that a test can switch off. All calls fail while the store is switched off.
#[derive(Debug, Clone, Default)]
pub struct Switched {
    store: Sessions,
    fails: Arc<AtomicBool>,
}

impl Switched {
    pub fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    fn check(&self) -> Result<()> {
        match self.fails.load(Ordering::SeqCst) {
            true => Err(Error::Backend("switched off".to_owned())),
            false => Ok(()),
        }
    }
}

type Answer<'f, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'f>>;

impl SessionStore for Switched {
    fn create<'s: 'f, 'r: 'f, 'f>(&'s self, record: &'r mut Record) -> Answer<'f, ()> {
        Box::pin(async move {
            self.check()?;
            self.store.create(record).await
        })
    }

    fn save<'s: 'f, 'r: 'f, 'f>(&'s self, record: &'r Record) -> Answer<'f, ()> {
        Box::pin(async move {
            self.check()?;
            self.store.save(record).await
        })
    }

    fn load<'s: 'f, 'r: 'f, 'f>(&'s self, id: &'r Id) -> Answer<'f, Option<Record>> {
        Box::pin(async move {
            self.check()?;
            self.store.load(id).await
        })
    }

    fn delete<'s: 'f, 'r: 'f, 'f>(&'s self, id: &'r Id) -> Answer<'f, ()> {
        Box::pin(async move {
            self.check()?;
            self.store.delete(id).await
        })
    }
}

/// Serves the example at `http://localhost`, which is another site than the simulator's 127.0.0.1.
/// Returns the origin and the server's tasks, which end when the set is dropped.
pub async fn serve(
    simulator: &Simulator,
    sessions: impl SessionStore + Clone,
) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let origin = format!("http://localhost:{port}");
    let wechat = simulator.client().unwrap();
    let users = UserTokens::new(wechat, MemoryStore::new());
    let login = Login::new(&origin, CookieKeys::random().unwrap()).unwrap();
    let app = application(users, login, sessions);
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, app).await.unwrap() });
    (origin, serving)
}
