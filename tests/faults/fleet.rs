//! The processes, and for each of them whether it was asked to exit and when it was stopped.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Mutex as AsyncMutex;

use crate::support::demo_process::DemoProcess;
use crate::support::http_client::HttpClient;

/// Source of a request's user at a process: a trusted header or the session cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Header,
    Cookie,
}

/// A process that runs, or has ended.
pub struct Member {
    pub number: u64,
    pub http: HttpClient,
    process: AsyncMutex<Option<DemoProcess>>,
    id: u32,
    /// `true` from the moment before the process is killed or gets SIGTERM, because its connections
    /// may break from then on.
    ending: AtomicBool,
    /// Begin and end of each time for which the process was stopped. `None` until the process
    /// continues.
    stops: Mutex<Vec<(Instant, Option<Instant>)>>,
}

/// A place for one process at a time, with the variables with which each process in it starts.
pub struct Place {
    pub by: By,
    variables: Vec<(String, String)>,
    member: Mutex<Option<Arc<Member>>>,
}

pub struct Fleet {
    pub places: Vec<Place>,
    started: AtomicU64,
}

/// Resource usage of a process.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub resident_kib: u64,
    pub open_files: usize,
}

impl Fleet {
    pub async fn start(places: Vec<(By, Vec<(String, String)>)>) -> Self {
        let places = places.into_iter().map(|(by, variables)| Place {
            by,
            variables,
            member: Mutex::new(None),
        });
        let fleet = Self {
            places: places.collect(),
            started: AtomicU64::new(0),
        };
        for place in 0..fleet.places.len() {
            fleet.fill(place).await;
        }
        fleet
    }

    /// Starts a process in a place. A process that cannot reach Redis exits, so that this function
    /// retries for up to 60 s.
    pub async fn fill(&self, place: usize) {
        let place = &self.places[place];
        let give_up = Instant::now() + Duration::from_secs(60);
        let process = loop {
            match DemoProcess::try_start(&place.variables).await {
                Ok(process) => break process,
                Err(said) => assert!(Instant::now() < give_up, "it never starts: {said}"),
            }
        };
        let member = Member {
            number: self.started.fetch_add(1, Ordering::SeqCst),
            http: process.http().clone(),
            id: process.id(),
            process: AsyncMutex::new(Some(process)),
            ending: AtomicBool::new(false),
            stops: Mutex::default(),
        };
        *place.member.lock().unwrap() = Some(Arc::new(member));
    }

    /// Removes the process from its place, so that it gets no new requests.
    pub fn vacate(&self, place: usize) -> Arc<Member> {
        let member = self.places[place].member.lock().unwrap().take();
        member.expect("a process is there")
    }

    pub fn member(&self, place: usize) -> Option<Arc<Member>> {
        self.places[place].member.lock().unwrap().clone()
    }

    /// Returns a random process of this kind, or `None` if none runs. In 99 of 100 cases it is not
    /// a stopped one, as behind a gateway with health checks.
    pub fn any(&self, by: By, rng: &mut fastrand::Rng) -> Option<Arc<Member>> {
        let unnoticed = rng.u32(..100) == 0;
        let members: Vec<_> = (0..self.places.len())
            .filter(|place| self.places[*place].by == by)
            .filter_map(|place| self.member(place))
            .filter(|member| unnoticed || !member.stands_still())
            .collect();
        (!members.is_empty()).then(|| Arc::clone(&members[rng.usize(..members.len())]))
    }

    pub fn started(&self) -> u64 {
        self.started.load(Ordering::SeqCst)
    }
}

impl Member {
    pub async fn kill(&self) {
        self.ending.store(true, Ordering::SeqCst);
        drop(self.process.lock().await.take());
    }

    /// Sends SIGTERM. Returns the exit code and the output of the process.
    pub async fn terminate(&self) -> (Option<i32>, String) {
        self.ending.store(true, Ordering::SeqCst);
        let process = self.process.lock().await.take().expect("it runs");
        process.signal("TERM");
        let (status, log) = process.ended(Duration::from_secs(60)).await;
        (status.code(), log)
    }

    pub async fn stop_for(&self, time: Duration) {
        let process = self.process.lock().await;
        let Some(process) = &*process else { return };
        self.stops.lock().unwrap().push((Instant::now(), None));
        process.signal("STOP");
        tokio::time::sleep(time).await;
        process.signal("CONT");
        if let Some((_, until)) = self.stops.lock().unwrap().last_mut() {
            *until = Some(Instant::now());
        }
    }

    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    fn stands_still(&self) -> bool {
        let stops = self.stops.lock().unwrap();
        stops.last().is_some_and(|(_, until)| until.is_none())
    }

    /// Returns for how long the process was stopped between two moments.
    pub fn stood_still(&self, from: Instant, until: Instant) -> Duration {
        let stops = self.stops.lock().unwrap();
        stops
            .iter()
            .map(|(start, end)| {
                let end = end.unwrap_or(until).min(until);
                end.saturating_duration_since((*start).max(from))
            })
            .sum()
    }

    pub fn usage(&self) -> Usage {
        let folder = format!("/proc/{}", self.id);
        let status = std::fs::read_to_string(format!("{folder}/status")).unwrap_or_default();
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().split(' ').next());
        Usage {
            resident_kib: resident.and_then(|kib| kib.parse().ok()).unwrap_or(0),
            open_files: std::fs::read_dir(format!("{folder}/fd")).map_or(0, Iterator::count),
        }
    }
}
