//! A TCP proxy before Redis that delays replies, as a network between a server and Redis does.
//!
//! Requests pass at once, and each part of a reply waits for the whole delay of the round trip. A
//! server cannot tell this from a delay in both directions. The proxy limits neither the bandwidth
//! nor the number of parts that wait, and keeps their order.
//!
//! The proxy runs in threads of the benchmark, so its processor time counts for neither the server
//! nor Redis. Timers of tokio have a resolution of 1 ms, which is too coarse. The threads sleep
//! until shortly before the time, and then spin.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Time for which a thread spins instead of sleeping: 40 µs. Nine in ten sleeps end at most this
/// late or a little later, because the thread then waits for a processor.
const SPIN: Duration = Duration::from_micros(40);

/// Number of bytes that a thread reads at once: 64 KiB.
const BUFFER_BYTES: usize = 64 * 1_024;

/// The running proxy, which accepts no more connections after this value is dropped.
pub struct DelayProxy {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl DelayProxy {
    /// Starts a proxy before the server at `target`, which delays its replies by `delay`.
    pub fn start(target: SocketAddr, delay: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let proxy = Self {
            address: listener.local_addr()?,
            stopped: Arc::default(),
        };
        let stopped = proxy.stopped.clone();
        thread::spawn(move || {
            reduce_timer_slack();
            for client in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let served = client.and_then(|client| serve(client, target, delay));
                if let Err(error) = served {
                    eprintln!("the proxy before Redis: {error}");
                }
            }
        });
        Ok(proxy)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for DelayProxy {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // The connection ends the wait of the thread that accepts connections.
        let _ = TcpStream::connect(self.address);
    }
}

/// Starts the three threads of one connection. They end when one side closes the connection.
fn serve(client: TcpStream, target: SocketAddr, delay: Duration) -> io::Result<()> {
    let server = TcpStream::connect(target)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (requests_from, requests_to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        read_parts(&requests_from, |part| {
            (&requests_to).write_all(part).is_ok()
        });
        let _ = requests_to.shutdown(Shutdown::Both);
    });
    let (waiting, parts) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        read_parts(&server, |part| {
            waiting
                .send((Instant::now() + delay, part.to_vec()))
                .is_ok()
        });
    });
    thread::spawn(move || {
        for (due, part) in parts {
            sleep_until(due);
            if (&client).write_all(&part).is_err() {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
    });
    Ok(())
}

/// Passes each part that arrives to `pass`, until the connection ends or `pass` returns `false`.
fn read_parts(mut from: &TcpStream, mut pass: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if !pass(&buffer[..read]) {
            break;
        }
    }
}

/// Makes the sleeps of this thread and of the threads that it starts exact. Linux otherwise ends
/// each sleep up to 50 µs late, to save wake-ups.
fn reduce_timer_slack() {
    let Ok(thread) = fs::read_link("/proc/thread-self") else {
        return;
    };
    // The link ends with the number of the thread, which has a folder in /proc like a process.
    if let Some(number) = thread.file_name() {
        let file = Path::new("/proc").join(number).join("timerslack_ns");
        let _ = fs::write(file, "1");
    }
}

fn sleep_until(due: Instant) {
    let remaining = due.saturating_duration_since(Instant::now());
    if let Some(most) = remaining.checked_sub(SPIN) {
        thread::sleep(most);
    }
    while Instant::now() < due {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts a server that returns the bytes of one connection to their sender.
    fn start_echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            read_parts(&stream, |part| (&stream).write_all(part).is_ok());
        });
        address
    }

    #[test]
    fn replies_arrive_after_the_delay() {
        let delay = Duration::from_millis(3);
        let proxy = DelayProxy::start(start_echo(), delay).unwrap();
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        for _ in 0..3 {
            let sent = Instant::now();
            stream.write_all(b"ping").unwrap();
            stream.read_exact(&mut [0; 4]).unwrap();
            assert!(sent.elapsed() >= delay);
        }
    }

    #[test]
    fn replies_keep_their_bytes_and_order() {
        let delay = Duration::from_micros(200);
        let proxy = DelayProxy::start(start_echo(), delay).unwrap();
        let stream = TcpStream::connect(proxy.address()).unwrap();
        let sent: Vec<u8> = (0..1_000_000_u32).map(|at| (at / 7) as u8).collect();
        thread::scope(|scope| {
            scope.spawn(|| (&stream).write_all(&sent).unwrap());
            let mut received = vec![0; sent.len()];
            (&stream).read_exact(&mut received).unwrap();
            assert!(received == sent);
        });
    }

    #[test]
    fn an_ended_connection_ends_on_both_sides() {
        let proxy = DelayProxy::start(start_echo(), Duration::ZERO).unwrap();
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
}
