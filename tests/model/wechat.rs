//! The rules by which WeChat issues, extends and revokes the pair of one user.

/// A pair of tokens and the time at which WeChat issued it. A token is the number of the response
/// that contained it first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pair {
    pub access: u8,
    pub refresh: u8,
    /// The number of the response. Responses with the same tokens have different numbers, because
    /// their times differ in the store.
    pub grant: u8,
    pub at: u8,
}

/// Steps of the model's clock after which a token is due for renewal: one. A token expires after
/// two steps.
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
    /// The user's pair that is valid at WeChat.
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

    /// Logs the user in. Returns a new pair and revokes the former one.
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

    /// Refreshes the pair. Before the expiry the access token stays and its lifetime begins again;
    /// afterwards WeChat issues a new one. Returns `None` if the refresh token is revoked.
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
