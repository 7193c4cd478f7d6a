//! A real redis-server on a free port, with a private folder. Dropping the value kills the server
//! and removes the folder.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Client, Connection};

pub struct RedisServer {
    child: Option<Child>,
    port: u16,
    folder: PathBuf,
    options: Vec<String>,
    /// Lines of the Sentinel's configuration. `None` for a server with data.
    sentinel: Option<String>,
}

impl RedisServer {
    pub fn start() -> Self {
        Self::with_options(&[])
    }

    /// Starts a server with these options on its command line.
    pub fn with_options(options: &[&str]) -> Self {
        Self::with(options, None)
    }

    /// Starts a Sentinel whose configuration has these lines.
    pub fn sentinel(lines: &str) -> Self {
        Self::with(&[], Some(lines))
    }

    fn with(options: &[&str], sentinel: Option<&str>) -> Self {
        // Another process may take the port before the server does, which then exits. The next
        // round uses another port.
        for _ in 0..5 {
            let port = super::free_port();
            let folder = std::env::temp_dir().join(format!("tower-wechat-redis-{port}"));
            std::fs::create_dir_all(&folder).unwrap();
            let options = options.iter().map(|option| (*option).to_owned()).collect();
            let mut server = Self {
                child: None,
                port,
                folder,
                options,
                sentinel: sentinel.map(str::to_owned),
            };
            if server.answers() {
                return server;
            }
        }
        panic!("redis-server ends as soon as it starts, with {options:?}");
    }

    /// Starts the server on the same port after [`kill`](Self::kill).
    pub fn run(&mut self) {
        assert!(self.answers(), "redis-server does not start again");
    }

    /// Starts the process. Returns `true` as soon as it replies, and `false` if it exits.
    fn answers(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        if let Some(lines) = &self.sentinel {
            // A Sentinel keeps its state in this file, and reads it after a restart.
            let file = self.folder.join("sentinel.conf");
            if !file.exists() {
                std::fs::write(&file, lines).unwrap();
            }
            command.arg(file).arg("--sentinel");
        }
        let child = command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(if self.sentinel.is_some() { [].as_slice() } else { &["--save", ""] })
            .arg("--dir")
            .arg(&self.folder)
            .args(&self.options)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("redis-server does not start ({error}); `apt-get install redis-server` installs it")
            });
        let child = self.child.insert(child);
        let give_up = Instant::now() + Duration::from_secs(10);
        loop {
            std::thread::sleep(Duration::from_millis(10));
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            if connection_to(self.port).is_some() {
                return true;
            }
            assert!(
                Instant::now() < give_up,
                "redis-server is not ready within 10 s"
            );
        }
    }

    /// Returns the process id and the folder of the server.
    pub fn process(&self) -> (u32, &Path) {
        (self.child.as_ref().expect("it runs").id(), &self.folder)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the server's address in the form `HOST:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns a connection, or `None` if the server does not reply within half a second.
    pub fn try_connection(&self) -> Option<Connection> {
        let client = Client::open(self.url()).ok()?;
        let wait = Duration::from_millis(500);
        let connection = client.get_connection_with_timeout(wait).ok()?;
        connection.set_read_timeout(Some(wait)).ok()?;
        Some(connection)
    }

    /// Returns a connection with which a test reads and writes values. Panics if the server does
    /// not reply.
    pub fn connection(&self) -> Connection {
        connection_to(self.port).expect("redis-server replies")
    }

    /// Returns how often the server has run a command, in scripts too, by `INFO commandstats`.
    pub fn calls(&self, command: &str) -> u64 {
        let info: String = redis::cmd("INFO")
            .arg("commandstats")
            .query(&mut self.connection())
            .unwrap();
        let line = format!("cmdstat_{command}:calls=");
        let count = info
            .lines()
            .find_map(|l| l.strip_prefix(&line)?.split(',').next()?.parse().ok());
        count.unwrap_or(0)
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops the server with SIGSTOP, or continues it. The connections of a stopped server stay
    /// open and get no replies.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let id = self.child.as_ref().expect("it runs").id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &id])
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn connection_to(port: u16) -> Option<Connection> {
    let client = Client::open(format!("redis://127.0.0.1:{port}/")).ok()?;
    let mut connection = client.get_connection().ok()?;
    // The reply that a password is missing also shows that the server is up.
    match redis::cmd("PING").query::<String>(&mut connection) {
        Ok(_) => Some(connection),
        Err(error) => error
            .code()
            .is_some_and(|code| code == "NOAUTH")
            .then_some(connection),
    }
}
