//! A real redis-server on a free port, with a folder of its own; both end with the value.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Client, Connection};

pub struct RedisServer {
    child: Option<Child>,
    port: u16,
    folder: PathBuf,
    options: Vec<String>,
}

impl RedisServer {
    pub fn start() -> Self {
        Self::with_options(&[])
    }

    /// Options as on redis-server's command line.
    pub fn with_options(options: &[&str]) -> Self {
        let port = super::free_port();
        let folder = std::env::temp_dir().join(format!("tower-wechat-redis-{port}"));
        std::fs::create_dir_all(&folder).unwrap();
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut server = Self {
            child: None,
            port,
            folder,
            options,
        };
        server.run();
        server
    }

    /// Starts the server again after [`kill`](Self::kill), on the same port.
    pub fn run(&mut self) {
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .arg("--dir")
            .arg(&self.folder)
            .args(&self.options)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("redis-server does not start ({error}); `apt-get install redis-server` brings it")
            });
        self.child = Some(child);
        let give_up = Instant::now() + Duration::from_secs(10);
        while self.try_connection().is_none() {
            assert!(
                Instant::now() < give_up,
                "redis-server is not ready within 10 s"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    fn try_connection(&self) -> Option<Connection> {
        let mut connection = Client::open(self.url()).ok()?.get_connection().ok()?;
        // A server with a password answers too.
        match redis::cmd("PING").query::<String>(&mut connection) {
            Ok(_) => Some(connection),
            Err(error) => error
                .code()
                .is_some_and(|code| code == "NOAUTH")
                .then_some(connection),
        }
    }

    /// A plain connection, to look at what is stored.
    pub fn connection(&self) -> Connection {
        self.try_connection().expect("redis-server answers")
    }

    /// How many commands of a kind the server has run: `INFO commandstats`.
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

    /// Freezes or thaws the server: its connections stay, its answers do not come.
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
