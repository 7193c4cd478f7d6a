//! The state of users' tokens, and never the tokens.

use redis::Cmd;
use std::ops::ControlFlow;

use super::super::codec::Value;
use super::super::names::Place;
use super::super::{Layout, RedisStore};
use super::walk::Walk;
use super::{Progress, Tally, Work, whole};
use crate::clock::Timestamp;
use crate::credential::refresh_life::surely_dead_at;
use crate::credential::{Freshness, Record, sealed_form};
use crate::error::Error;
use crate::store::{Kind, Slot};

/// Where a user's pair stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Usable, and not due for renewal.
    Fresh,
    /// Usable, and due for renewal.
    Stale,
    /// Not usable any more, and renewed when the user comes.
    Expired,
    /// Nothing can be made of it: the user has to log in. A sweep removes it.
    Dead,
    /// There is something, but it cannot be read.
    Unreadable,
    /// It is sealed with a key that is not in the ring.
    OtherKey,
    /// There is nothing.
    Absent,
}

impl State {
    /// Its name in the program's output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Expired => "expired",
            Self::Dead => "dead",
            Self::Unreadable => "unreadable",
            Self::OtherKey => "other_key",
            Self::Absent => "absent",
        }
    }
}

/// What can be told of a user without telling a secret.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UserReport {
    /// The user id.
    pub user: String,
    /// Where the pair stands.
    pub state: State,
    /// The first 16 hexadecimal digits of the access token's SHA-256.
    pub token_fingerprint: Option<String>,
    /// Seconds until the access token dies; negative when it has.
    pub expires_in_secs: Option<i64>,
    /// Seconds until the refresh token should be dead, where the time stored with it can say so:
    /// other services may store the access token's.
    pub refresh_due_in_secs: Option<i64>,
    /// What WeChat told of the user.
    pub openid: Option<String>,
    /// The granted scope.
    pub scope: Option<String>,
    /// The ids of the keys with which the values are sealed; empty for plain ones.
    pub sealed_with: Vec<String>,
}

impl RedisStore {
    /// The state of one user, and whether the token is being renewed at the moment.
    ///
    /// # Errors
    /// The store does not answer.
    #[doc(hidden)]
    pub async fn user_report(&self, work: &Work, user: &str) -> Result<(UserReport, bool), Error> {
        let slot = work.slot(Kind::User, user);
        let place = self.places(&slot).read;
        let values = self.read_many(&[&place]).await?;
        let values = values.into_iter().next().unwrap_or_default();
        let mut ask = redis::cmd("EXISTS");
        let renewing: bool = self
            .command(ask.arg(self.0.names.lease(&slot.name, &place)))
            .await?;
        Ok((self.report(&slot, &place, &values), renewing))
    }

    /// The state of every user of the store's layout, one after another.
    ///
    /// # Errors
    /// The store does not answer.
    #[doc(hidden)]
    pub async fn survey(
        &self,
        work: &Work,
        visit: &mut (dyn FnMut(UserReport) -> ControlFlow<()> + Send),
        progress: Progress<'_>,
    ) -> Result<Tally, Error> {
        let mut tally = Tally::default();
        let mut walk = Walk::new(self, &work.app, Kind::User, self.0.layout);
        while let Some(ids) = walk.next().await? {
            tally.unnamed(walk.take_not_utf8());
            let slots: Vec<Slot> = ids.iter().map(|id| work.slot(Kind::User, id)).collect();
            let places: Vec<Place<'_>> = slots.iter().map(|slot| self.places(slot).read).collect();
            let values = self.read_many(&places.iter().collect::<Vec<_>>()).await?;
            for ((slot, place), values) in slots.iter().zip(&places).zip(&values) {
                tally.seen += 1;
                let report = self.report(slot, place, values);
                if report.state == State::Absent {
                    continue;
                }
                if visit(report).is_break() {
                    return Ok(tally);
                }
            }
            progress(&tally);
            tokio::time::sleep(work.pause).await;
        }
        Ok(tally)
    }

    /// Around how many users there are, for a look at how far the work has come.
    ///
    /// # Errors
    /// The store does not answer.
    #[doc(hidden)]
    pub async fn about_how_many(&self, work: &Work) -> Result<u64, Error> {
        match self.0.layout {
            Layout::Hashes => {
                let slot = work.slot(Kind::User, "");
                let place = self.places(&slot).read;
                let ask: Vec<_> = place
                    .cells
                    .iter()
                    .map(|cell| Cmd::hlen(&cell.key))
                    .collect();
                let sizes: Vec<u64> = self.read_all(&ask).await?;
                Ok(sizes.into_iter().max().unwrap_or_default())
            }
            Layout::Keys => self.command(&redis::cmd("DBSIZE")).await,
        }
    }

    fn report(&self, slot: &Slot, place: &Place<'_>, values: &[Value]) -> UserReport {
        let seals = values
            .iter()
            .flatten()
            .map(|value| sealed_form::split(value));
        let ids: Vec<_> = seals.flatten().map(|(id, _)| id).collect();
        let record = whole(place, slot, values, &self.0.seal);
        let now = self.0.clock.now();
        let state = match &record {
            None if ids.iter().any(|id| !self.0.seal.has(*id)) => State::OtherKey,
            None => State::Unreadable,
            Some(record) => state(record, now),
        };
        let record = record.unwrap_or_default();
        let token = record.token.as_ref();
        let seconds = |at: Timestamp| at.as_millis().saturating_sub(now.as_millis()) / 1_000;
        let mut sealed_with: Vec<String> = ids.iter().map(ToString::to_string).collect();
        sealed_with.dedup();
        UserReport {
            user: slot.name.id.to_string(),
            state,
            token_fingerprint: token.map(|token| token.secret.fingerprint()),
            expires_in_secs: token.map(|token| seconds(token.lifetime.expires_at())),
            refresh_due_in_secs: record.view().refresh_ends_at().map(seconds),
            openid: record.details.openid.map(String::from),
            scope: record.details.scope.map(String::from),
            sealed_with,
        }
    }
}

fn state(record: &Record, now: Timestamp) -> State {
    if record.is_empty() {
        return State::Absent;
    }
    let token = record.token.as_ref();
    let freshness = token.map(|token| token.lifetime.freshness(now));
    let renewable = record.refresh.as_ref();
    let renew_at = token.map(|token| token.lifetime.renew_at());
    let renewable = renewable.is_some_and(|refresh| surely_dead_at(refresh.due, renew_at) >= now);
    match freshness {
        Some(Freshness::Fresh) => State::Fresh,
        Some(Freshness::Stale) => State::Stale,
        _ if renewable => State::Expired,
        _ => State::Dead,
    }
}
