//! The load generator: one thread that drives keep-alive connections of HTTP/1.1, each with one
//! request at a time. The generator does as little as possible for each request, so that the
//! servers are the bottleneck.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::histogram::Histogram;

/// Time without any response after which a run fails: 60 seconds. A run for a number of requests
/// also sends no request after this time.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// The requests of the users as bytes, with the expected body of each response.
pub struct PreparedRequests {
    bytes: Vec<u8>,
    spans: Vec<(Range<usize>, String)>,
}

impl PreparedRequests {
    /// Creates one request for each item of `named`, which is the header line with the credential,
    /// and the user's id.
    pub fn new(named: impl Iterator<Item = (String, String)>) -> Self {
        let mut bytes = Vec::new();
        let spans = named.map(|(line, id)| {
            let from = bytes.len();
            let head = format!("GET /me HTTP/1.1\r\nhost: 127.0.0.1\r\n{line}\r\n\r\n");
            bytes.extend_from_slice(head.as_bytes());
            (from..bytes.len(), id)
        });
        let spans = spans.collect();
        Self { bytes, spans }
    }

    pub fn len(&self) -> usize {
        self.spans.len()
    }
}

/// The order in which users send requests.
#[derive(Debug, Clone, Copy)]
pub enum UserOrder {
    /// Each request is of a random user, with the same probability for all users.
    Uniform,
    /// Users send requests one after the other, and then from the first again.
    RoundRobin,
}

#[derive(Debug, Clone, Copy)]
pub enum StopCondition {
    Time(Duration),
    Requests(usize),
}

/// The result of a run of the generator.
#[derive(Default)]
pub struct LoadResult {
    /// Number of responses that arrived before the end of the time.
    pub in_time: u64,
    /// Number of all responses, including responses to requests that were under way at the end of
    /// the time.
    pub answers: u64,
    /// Time from the first request to the last response.
    pub took: Duration,
    /// Number of responses other than 200 with the user's id.
    pub wrong_answers: u64,
    /// The text of the first wrong response, if there was a wrong response.
    pub first_wrong_answer: Option<String>,
    pub latencies: Histogram,
}

impl LoadResult {
    pub fn per_second(&self, slice: Duration) -> f64 {
        self.in_time as f64 / slice.as_secs_f64()
    }

    /// Panics if there was a wrong response.
    pub fn expect_no_wrong_answers(self, who: &str) -> Self {
        if let Some(example) = &self.first_wrong_answer {
            panic!(
                "{who}: {} answers were wrong, as\n{example}",
                self.wrong_answers
            );
        }
        self
    }
}

struct ClientConnection {
    stream: TcpStream,
    user: usize,
    sent_at: Instant,
    reply: Vec<u8>,
}

pub struct Generator {
    poll: Poll,
    events: Events,
    connections: Vec<ClientConnection>,
    random: fastrand::Rng,
}

impl Generator {
    /// Opens this number of connections, which are distributed evenly over the servers.
    pub fn connect(servers: &[SocketAddr], connections: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut opened = Vec::with_capacity(connections);
        for at in 0..connections {
            let stream = std::net::TcpStream::connect(servers[at % servers.len()])?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry()
                .register(&mut stream, Token(at), Interest::READABLE)?;
            opened.push(ClientConnection {
                stream,
                user: 0,
                sent_at: Instant::now(),
                reply: Vec::with_capacity(1_024),
            });
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(1_024),
            connections: opened,
            random: fastrand::Rng::with_seed(7),
        })
    }

    /// Sends requests on all connections until the condition `until` is met, and waits for the last
    /// responses.
    ///
    /// Each connection gets its next request as soon as its response is complete, so the number of
    /// requests under way is constant until the end. Responses after the end count in `answers` but
    /// not in `in_time`.
    pub fn run(
        &mut self,
        requests: &PreparedRequests,
        order: UserOrder,
        until: StopCondition,
    ) -> io::Result<LoadResult> {
        let began = Instant::now();
        let (deadline, enough) = match until {
            StopCondition::Time(time) => (began + time, usize::MAX),
            StopCondition::Requests(enough) => (began + RESPONSE_TIMEOUT, enough),
        };
        let mut outcome = LoadResult::default();
        let (mut sent, mut under_way) = (0, 0);
        for at in 0..self.connections.len().min(enough) {
            self.send(at, requests, order, sent)?;
            sent += 1;
            under_way += 1;
        }
        while under_way > 0 {
            self.poll.poll(&mut self.events, Some(RESPONSE_TIMEOUT))?;
            if self.events.is_empty() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let ready: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
            for at in ready {
                if !self.receive(at)? {
                    continue;
                }
                let now = Instant::now();
                let connection = &mut self.connections[at];
                outcome.latencies.record(now - connection.sent_at);
                outcome.answers += 1;
                outcome.in_time += u64::from(now <= deadline);
                if !is_expected(&connection.reply, &requests.spans[connection.user].1) {
                    outcome.wrong_answers += 1;
                    let text = || String::from_utf8_lossy(&connection.reply).into_owned();
                    outcome.first_wrong_answer.get_or_insert_with(text);
                }
                connection.reply.clear();
                under_way -= 1;
                if now < deadline && sent < enough {
                    self.send(at, requests, order, sent)?;
                    sent += 1;
                    under_way += 1;
                }
            }
        }
        outcome.took = began.elapsed();
        Ok(outcome)
    }

    fn send(
        &mut self,
        at: usize,
        requests: &PreparedRequests,
        order: UserOrder,
        sent: usize,
    ) -> io::Result<()> {
        let user = match order {
            UserOrder::Uniform => self.random.usize(..requests.len()),
            UserOrder::RoundRobin => sent % requests.len(),
        };
        let connection = &mut self.connections[at];
        connection.user = user;
        connection.sent_at = Instant::now();
        let request = &requests.bytes[requests.spans[user].0.clone()];
        // The socket's buffer is empty, so the few hundred bytes of a request fit at once.
        match connection.stream.write(request)? {
            written if written == request.len() => Ok(()),
            _ => Err(io::Error::other("a socket took half a request")),
        }
    }

    /// Reads all bytes that a connection has received. Returns `true` if its response is complete.
    fn receive(&mut self, at: usize) -> io::Result<bool> {
        let connection = &mut self.connections[at];
        let mut buffer = [0; 4_096];
        // A short read has emptied the socket. Further bytes cause another event.
        loop {
            match connection.stream.read(&mut buffer) {
                Ok(0) => return Err(io::Error::other("a server closed a connection")),
                Ok(read) => {
                    connection.reply.extend_from_slice(&buffer[..read]);
                    if read < buffer.len() {
                        return Ok(is_complete(&connection.reply));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(is_complete(&connection.reply));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn split_head_and_body(reply: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = reply.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some((&reply[..end], &reply[end + 4..]))
}

fn is_complete(reply: &[u8]) -> bool {
    let Some((head, body)) = split_head_and_body(reply) else {
        return false;
    };
    let name = b"content-length: ";
    let length = head
        .split(|byte| *byte == b'\n')
        .find(|line| line.len() > name.len() && line[..name.len()].eq_ignore_ascii_case(name))
        .and_then(|line| std::str::from_utf8(&line[name.len()..]).ok())
        .and_then(|digits| digits.trim().parse().ok())
        .unwrap_or(0);
    body.len() >= length
}

fn is_expected(reply: &[u8], id: &str) -> bool {
    reply.starts_with(b"HTTP/1.1 200") && reply.ends_with(id.as_bytes())
}
