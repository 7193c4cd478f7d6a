//! The measured processes: servers and Redis. Dropping a value ends its process.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Client, Connection};

use crate::contender::Contender;
use crate::environment::REDIS_URL;

/// The process of a contender's server, which ends when this value is dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    pub fn start(contender: Contender, redis: &Redis) -> Self {
        Self::start_with_env(contender, redis, &[])
    }

    pub fn start_with_env(contender: Contender, redis: &Redis, variables: &[(&str, &str)]) -> Self {
        Self::start_under(&[], contender, redis, variables)
    }

    /// Starts a contender under another program, such as valgrind. `watcher` is the start of the
    /// command line.
    pub fn start_under(
        watcher: &[String],
        contender: Contender,
        redis: &Redis,
        variables: &[(&str, &str)],
    ) -> Self {
        let ours = std::env::current_exe().expect("this program");
        let mut command = match watcher.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(ours);
                command
            }
            None => Command::new(ours),
        };
        let mut child = command
            .args(["serve", contender.name()])
            .env(REDIS_URL, redis.url())
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{contender} does not start: {error}"));
        let stdout = child.stdout.take().expect("piped");
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        let port: u16 = match (read, line.trim().parse()) {
            (Ok(_), Ok(port)) => port,
            _ => panic!("{contender} ended before it listened"),
        };
        Self {
            child,
            address: ([127, 0, 0, 1], port).into(),
        }
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Closes the standard input of the process, and waits until the process ends.
    pub fn wait_for_exit(mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A redis-server on a free port of the loopback, with default settings and without persistence.
pub struct Redis {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Redis {
    pub fn start() -> Self {
        // Another process may take the port before Redis does. Then the next port is tried.
        for _ in 0..5 {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let port = listener.local_addr().expect("an address").port();
            drop(listener);
            let folder = std::env::temp_dir().join(format!("tower-wechat-load-{port}"));
            std::fs::create_dir_all(&folder).expect("a folder for Redis");
            let child = Command::new("redis-server")
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
                .args(["--save", "", "--dir"])
                .arg(&folder)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("redis-server starts; `apt-get install redis-server` brings it");
            let mut redis = Self {
                child,
                port,
                folder,
            };
            let give_up = Instant::now() + Duration::from_secs(10);
            while Instant::now() < give_up && matches!(redis.child.try_wait(), Ok(None)) {
                if redis.answers() {
                    return redis;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        panic!("redis-server does not stay");
    }

    fn answers(&self) -> bool {
        let connection = Client::open(self.url()).and_then(|client| client.get_connection());
        connection.is_ok_and(|mut connection| redis::cmd("PING").exec(&mut connection).is_ok())
    }

    pub fn url(&self) -> String {
        format!("redis://{}/", self.address())
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    pub fn connection(&self) -> Connection {
        let client = Client::open(self.url()).expect("an address");
        client.get_connection().expect("redis-server answers")
    }

    pub fn flush(&self) {
        let mut connection = self.connection();
        redis::cmd("FLUSHALL").exec(&mut connection).expect("empty");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A connection that reads the counters of Redis. [`RedisCounts::since`] subtracts the command of
/// this connection.
pub struct RedisCounters(Connection);

#[derive(Debug, Clone, Copy, Default)]
pub struct RedisCounts {
    pub commands: u64,
    /// Number of reads from sockets by Redis. With one request at a time, each read is a round
    /// trip.
    pub reads: u64,
}

impl RedisCounts {
    /// Returns the difference from an earlier count, less the one command that read this count.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            commands: (self.commands - earlier.commands).saturating_sub(1),
            reads: (self.reads - earlier.reads).saturating_sub(1),
        }
    }
}

impl RedisCounters {
    pub fn new(redis: &Redis) -> Self {
        Self(redis.connection())
    }

    pub fn now(&mut self) -> RedisCounts {
        let info = self.info("stats");
        RedisCounts {
            commands: info_field(&info, "total_commands_processed"),
            reads: info_field(&info, "total_reads_processed"),
        }
    }

    pub fn used_memory(&mut self) -> u64 {
        info_field(&self.info("memory"), "used_memory")
    }

    pub fn version(&mut self) -> String {
        let info = self.info("server");
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("redis_version:"));
        line.unwrap_or("unknown").trim().to_owned()
    }

    fn info(&mut self, section: &str) -> String {
        let mut command = redis::cmd("INFO");
        command.arg(section).query(&mut self.0).expect("INFO")
    }
}

fn info_field(info: &str, name: &str) -> u64 {
    let value = info
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}
