//! WeChat's rules for the pair of one user, as far as a renewal meets them.

/// A pair, and when it was granted. Numbers stand for tokens: a token is named after the grant
/// that first brought it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pair {
    pub access: u8,
    pub refresh: u8,
    /// The number of the grant: later grants have higher ones. Two grants of one token differ in
    /// it, as the stored bytes do by their time.
    pub grant: u8,
    pub at: u8,
}

/// A token is due for renewal after this much time, and dead after twice as much.
const UNTIL_DUE: u8 = 1;

impl Pair {
    pub fn is_due(self, now: u8) -> bool {
        now >= self.at + UNTIL_DUE
    }

    fn is_expired(self, now: u8) -> bool {
        now >= self.at + 2 * UNTIL_DUE
    }
}

/// When a refresh brings a new refresh token and kills the one that it was asked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    Never,
    AfterExpiry,
    Always,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wechat {
    /// One user has one live pair.
    pub live: Pair,
    granted: u8,
}

impl Wechat {
    pub fn new(live: Pair) -> Self {
        Self { live, granted: 0 }
    }

    pub fn is_alive(&self, refresh: u8) -> bool {
        self.live.refresh == refresh
    }

    /// A login: a new pair, which kills the former one.
    pub fn log_in(&mut self, now: u8) -> Pair {
        self.granted += 1;
        self.live = Pair {
            access: self.granted,
            refresh: self.granted,
            grant: self.granted,
            at: now,
        };
        self.live
    }

    /// A refresh: before the expiry the token stays and lives longer, after it there is a new one.
    /// `None`: the refresh token is dead.
    pub fn refresh(&mut self, refresh: u8, now: u8, rotation: Rotation) -> Option<Pair> {
        if !self.is_alive(refresh) {
            return None;
        }
        let expired = self.live.is_expired(now);
        self.granted += 1;
        if expired {
            self.live.access = self.granted;
        }
        if rotation == Rotation::Always || (rotation == Rotation::AfterExpiry && expired) {
            self.live.refresh = self.granted;
        }
        self.live.grant = self.granted;
        self.live.at = now;
        Some(self.live)
    }
}
