//! WeChat's rules for the pair of one user, as far as they concern a renewal.

/// A pair and the time at which WeChat issued it. A token is a number: that of the response which
/// first contained it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pair {
    pub access: u8,
    pub refresh: u8,
    /// The number of the response. Two responses with the same tokens have different numbers, as
    /// their stored bytes have different times.
    pub grant: u8,
    pub at: u8,
}

/// Time after which a token is stale. It expires after twice as much.
const UNTIL_DUE: u8 = 1;

impl Pair {
    pub fn is_due(self, now: u8) -> bool {
        now >= self.at + UNTIL_DUE
    }

    fn is_expired(self, now: u8) -> bool {
        now >= self.at + 2 * UNTIL_DUE
    }
}

/// Condition under which a refresh returns a new refresh token and revokes the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    Never,
    AfterExpiry,
    Always,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wechat {
    /// The valid pair of the user.
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

    /// Logs the user in: returns a new pair and revokes the former one.
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

    /// Refreshes the pair: before the expiry it extends the access token, afterwards it issues a new
    /// one. Returns `None` if the refresh token is revoked.
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
