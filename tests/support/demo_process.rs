//! Starts the demo and other examples as processes, and sends requests to them over HTTP.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::http_client::{Answer, Asked, HttpClient};

/// The header by which demos of tests identify the user.
pub const USER_HEADER: &str = "x-user-id";

/// Maximum time for a demo to start or to exit with an error: 30 s, for a busy machine.
const START_WITHIN: Duration = Duration::from_secs(30);

/// A process of the demo or of another example. Dropping the value kills the process.
pub struct DemoProcess {
    child: Child,
    pub url: String,
    log: Log,
    http: HttpClient,
}

/// Exit status and output of a demo that did not start.
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

/// Collects the output of a process while it runs.
struct Log {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Log {
    fn of(mut stream: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut lines = BufReader::new(&mut stream);
            let mut line = Vec::new();
            while lines
                .read_until(b'\n', &mut line)
                .is_ok_and(|read| read > 0)
            {
                shared
                    .lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Self {
            text,
            reader: Some(reader),
        }
    }

    fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    /// Waits for the end of the stream and returns its whole text.
    fn whole(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.text()
    }
}

/// Returns the path of an example, which cargo has built beside this test.
fn binary(example: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(|deps| deps.parent()).unwrap();
    let program = folder.join("examples").join(example);
    assert!(
        program.is_file(),
        "there is no {}; `cargo build --examples` makes it (`cargo test` without --test too)",
        program.display()
    );
    program
}

/// Starts an example with these variables only. The environment of the test program has no effect.
fn spawn(example: &str, variables: &[(String, String)]) -> Child {
    Command::new(binary(example))
        .env_clear()
        .env("LISTEN", "127.0.0.1:0")
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

impl DemoProcess {
    /// Starts a demo and waits until it accepts requests. Panics if it does not start.
    pub async fn start(variables: &[(String, String)]) -> Self {
        Self::of("demo", variables).await
    }

    /// Starts another example and waits until it prints its address. Panics if it does not start.
    pub async fn of(example: &str, variables: &[(String, String)]) -> Self {
        Self::try_of(example, variables)
            .await
            .unwrap_or_else(|said| panic!("{example} did not start; {said}"))
    }

    /// Starts a demo. Returns its output if it does not start, as with an unreachable Redis.
    pub async fn try_start(variables: &[(String, String)]) -> Result<Self, String> {
        Self::try_of("demo", variables).await
    }

    async fn try_of(example: &str, variables: &[(String, String)]) -> Result<Self, String> {
        let mut child = spawn(example, variables);
        let mut log = Log::of(child.stderr.take().unwrap());
        let stdout = child.stdout.take().unwrap();
        let later = Arc::clone(&log.text);
        let (first_line, line) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut line = String::new();
            let _ = stdout.read_line(&mut line);
            let _ = first_line.send(line);
            // Reads stdout until its end, because a demo that writes to a closed pipe would fail.
            // The lines become a part of the log.
            let mut line = Vec::new();
            while stdout
                .read_until(b'\n', &mut line)
                .is_ok_and(|read| read > 0)
            {
                let mut text = later.lock().unwrap();
                text.push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        let line = tokio::time::timeout(START_WITHIN, line).await;
        let line = line.expect("the demo prints its address").unwrap();
        let Some(url) = line.trim().strip_prefix("listening on ").map(str::to_owned) else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("it said {line:?} and {}", log.whole()));
        };
        Ok(Self {
            child,
            http: HttpClient::new(&url),
            url,
            log,
        })
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Starts a demo that must exit with an error, and returns its output.
    pub async fn start_in_vain(variables: &[(String, String)]) -> Ended {
        let started = Instant::now();
        let mut child = spawn("demo", variables);
        let mut stdout = Log::of(child.stdout.take().unwrap());
        let mut stderr = Log::of(child.stderr.take().unwrap());
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > START_WITHIN {
                let _ = child.kill();
                let _ = child.wait();
                panic!(
                    "the demo neither ended nor was it meant to run: {}",
                    stderr.whole()
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let took = started.elapsed();
        Ended {
            status,
            stdout: stdout.whole(),
            stderr: stderr.whole(),
            took,
        }
    }

    /// Sends `GET /api/me` as this user.
    pub async fn me(&self, user: &str) -> Answer {
        self.http.me(user).await
    }

    pub async fn get(&self, path: &str, user: &str) -> Answer {
        self.ask(Asked::get(path).header(USER_HEADER, user)).await
    }

    pub async fn ask(&self, asked: Asked) -> Answer {
        self.http.ask(asked).await
    }

    pub fn http(&self) -> &HttpClient {
        &self.http
    }

    /// Returns what the demo has written so far: its stderr, and its stdout after the first line.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Waits until `times` lines of the log contain all of these parts, and panics if their number
    /// differs.
    pub async fn says(&self, times: usize, parts: &[&str]) {
        let holds = |line: &&str| parts.iter().all(|part| line.contains(part));
        let said = || self.log().lines().filter(holds).count();
        // A line may arrive here later than the response that follows it.
        let give_up = Instant::now() + Duration::from_secs(10);
        while said() < times && Instant::now() < give_up {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(said(), times, "lines with {parts:?} in {}", self.log());
    }

    /// Sends a signal, by its name without `SIG`: `STOP`, `CONT`, `TERM` or `KILL`.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &id])
            .status();
        assert!(
            sent.expect("kill is installed").success(),
            "no process takes SIG{name}"
        );
    }

    /// Waits until the process has ended. Returns its exit status and its log.
    pub async fn ended(mut self, within: Duration) -> (ExitStatus, String) {
        let give_up = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, self.log.whole());
            }
            assert!(
                Instant::now() < give_up,
                "still there after {within:?}: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for DemoProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // After a failed test, prints the log.
        if std::thread::panicking() {
            eprintln!(
                "--- stderr of the demo at {}\n{}---",
                self.url,
                self.log.whole()
            );
        }
    }
}
