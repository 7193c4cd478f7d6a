//! A TCP proxy that damages replies: at random by a seed, or on request of a test.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Probabilities, in thousandths, with which the proxy damages a piece of a reply in each way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weather {
    /// The piece arrives late, by a random time up to `longest_delay`.
    pub delay: u32,
    pub longest_delay: Duration,
    /// The proxy resets the connection and drops the piece.
    pub cut: u32,
    /// The proxy passes on a part of the piece and closes the connection.
    pub truncate: u32,
    /// The proxy drops the piece and all later replies, and keeps the connection open.
    pub blackhole: u32,
}

impl Weather {
    pub const CALM: Self = Self {
        delay: 0,
        longest_delay: Duration::ZERO,
        cut: 0,
        truncate: 0,
        blackhole: 0,
    };
}

/// Time for which the proxy reads a server's replies after the client's connection has ended, 6 s.
/// These replies count as lost.
const LAST_WORDS: Duration = Duration::from_secs(6);

/// State of the traffic on all connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// No byte is passed on. Connections stay open, and new ones are accepted.
    Silent,
}

/// Numbers of connections and of damaged pieces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Damage {
    pub connections: u64,
    pub delayed: u64,
    pub cut: u64,
    pub truncated: u64,
    pub blackholed: u64,
}

pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _accepting: AbortOnDropHandle<()>,
}

struct Shared {
    server: Mutex<String>,
    seed: u64,
    weather: Mutex<Weather>,
    state: watch::Sender<State>,
    /// The proxy resets connections with a lower number.
    oldest: watch::Sender<u64>,
    connections: AtomicU64,
    /// Replies that the client did not receive completely.
    lost: Mutex<Vec<Vec<u8>>>,
    damage: Mutex<Damage>,
}

impl Proxy {
    /// Starts a proxy in front of `HOST:PORT`, which damages nothing at first.
    pub async fn start(server: &str, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server: Mutex::new(server.to_owned()),
            seed,
            weather: Mutex::new(Weather::CALM),
            state: watch::channel(State::Open).0,
            oldest: watch::channel(0).0,
            connections: AtomicU64::new(0),
            lost: Mutex::default(),
            damage: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            _accepting: AbortOnDropHandle::new(accepting),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes new connections lead to another server, `HOST:PORT`. Existing connections stay, as
    /// behind a host name or a virtual IP.
    pub fn lead_to(&self, server: &str) {
        *self.shared.server.lock().unwrap() = server.to_owned();
    }

    pub fn weather(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap() = weather;
    }

    /// Stops all traffic, or lets it continue. Bytes that were sent meanwhile then arrive.
    pub fn silent(&self, silent: bool) {
        let state = if silent { State::Silent } else { State::Open };
        self.shared.state.send_replace(state);
    }

    /// Resets all existing connections.
    pub fn cut_all(&self) {
        let next = self.shared.connections.load(Ordering::SeqCst);
        self.shared.oldest.send_replace(next);
    }

    pub fn damage(&self) -> Damage {
        Damage {
            connections: self.shared.connections.load(Ordering::SeqCst),
            ..*self.shared.damage.lock().unwrap()
        }
    }

    /// Returns `true` if a lost reply contains these bytes.
    pub fn has_lost(&self, bytes: &str) -> bool {
        let lost = self.shared.lost.lock().unwrap();
        lost.iter()
            .any(|reply| reply.windows(bytes.len()).any(|at| at == bytes.as_bytes()))
    }

    /// Returns the number of lost replies that contain these bytes.
    pub fn lost(&self, bytes: &str) -> usize {
        let lost = self.shared.lost.lock().unwrap();
        lost.iter()
            .filter(|reply| reply.windows(bytes.len()).any(|at| at == bytes.as_bytes()))
            .count()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let number = shared.connections.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move { shared.serve(client, number).await });
    }
}

/// Reason for which the proxy ends a connection.
enum End {
    /// A peer has closed the connection, and the proxy closes it too.
    Closed,
    /// The proxy resets the connection, as the crash of a host does.
    Broken,
}

/// A piece of a reply on its way. If it is dropped before its arrival, it counts as lost.
struct Piece<'a> {
    lost: &'a Mutex<Vec<Vec<u8>>>,
    bytes: &'a [u8],
    arrived: bool,
}

impl Drop for Piece<'_> {
    fn drop(&mut self) {
        if !self.arrived {
            self.lost.lock().unwrap().push(self.bytes.to_vec());
        }
    }
}

impl Shared {
    async fn serve(&self, client: TcpStream, number: u64) {
        let server = self.server.lock().unwrap().clone();
        let Ok(server) = TcpStream::connect(&server).await else {
            return;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let mut oldest = self.oldest.subscribe();
        let breaks = async {
            let _ = oldest.wait_for(|oldest| *oldest > number).await;
        };
        let (from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let rng = fastrand::Rng::with_seed(self.seed ^ (number << 20));
        let end = tokio::select! {
            // The end of the connection comes first. On a busy machine, a reply may be ready at the
            // same time, and a write to a client that is gone succeeds: the reply would not count
            // as lost.
            biased;
            end = self.requests(from_client, &mut to_server) => end,
            () = breaks => End::Broken,
            end = self.replies(&mut from_server, &mut to_client, rng) => end,
        };
        if matches!(end, End::Broken) {
            // A linger of zero resets the connection, as the crash of a host does.
            let _ = to_client.as_ref().set_zero_linger();
        }
        drop(to_client);
        // The server may still execute a request, whose reply is read and counts as lost.
        let _ = tokio::time::timeout(LAST_WORDS, self.swallow(&mut from_server)).await;
    }

    /// Waits until the proxy may pass bytes on.
    async fn passable(&self) {
        let mut state = self.state.subscribe();
        let _ = state.wait_for(|state| *state == State::Open).await;
    }

    async fn requests(&self, mut from: OwnedReadHalf, to: &mut OwnedWriteHalf) -> End {
        let mut piece = vec![0; 16 * 1024];
        loop {
            let read = match from.read(&mut piece).await {
                Ok(0) | Err(_) => return End::Closed,
                Ok(read) => read,
            };
            self.passable().await;
            if to.write_all(&piece[..read]).await.is_err() {
                return End::Closed;
            }
        }
    }

    async fn replies(
        &self,
        from: &mut OwnedReadHalf,
        to: &mut OwnedWriteHalf,
        mut rng: fastrand::Rng,
    ) -> End {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = match from.read(&mut buffer).await {
                Ok(0) | Err(_) => return End::Closed,
                Ok(read) => read,
            };
            let mut piece = Piece {
                lost: &self.lost,
                bytes: &buffer[..read],
                arrived: false,
            };
            self.passable().await;
            let weather = *self.weather.lock().unwrap();
            let mut happens = |of_a_thousand| rng.u32(..1_000) < of_a_thousand;
            if happens(weather.delay) {
                self.damage.lock().unwrap().delayed += 1;
                tokio::time::sleep(weather.longest_delay.mul_f64(rng.f64())).await;
            } else if happens(weather.cut) {
                self.damage.lock().unwrap().cut += 1;
                return End::Broken;
            } else if happens(weather.truncate) {
                self.damage.lock().unwrap().truncated += 1;
                let _ = to.write_all(&piece.bytes[..rng.usize(..read)]).await;
                return End::Closed;
            } else if happens(weather.blackhole) {
                self.damage.lock().unwrap().blackholed += 1;
                drop(piece);
                // Requests still reach the server, and its replies are dropped.
                self.swallow(from).await;
                return End::Closed;
            }
            if to.write_all(piece.bytes).await.is_err() {
                return End::Closed;
            }
            piece.arrived = true;
        }
    }

    /// Reads and drops the server's replies, which count as lost, until it closes the connection.
    async fn swallow(&self, from: &mut OwnedReadHalf) {
        let mut unheard = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = from.read(&mut unheard).await {
            self.lost.lock().unwrap().push(unheard[..read].to_vec());
        }
    }
}
