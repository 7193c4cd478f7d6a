//! The state of the third-party platforms, behind the simulator's lock.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use serde::Serialize;

use super::{
    authorizer::Authorizer,
    prepared_push::{PreparedPush, PushKeys, PushReply},
    push_queue::PushQueue,
};
use crate::simulator::{app_index::AppIndex, random};

/// The Token and the EncodingAESKey of a platform whose test sets neither.
const DEFAULT_TOKEN: &str = "simulated-token";
const DEFAULT_AES_KEY: &str = "SimulatedWechatPushKey000000000000000000001";

/// Maximum number of pushes whose outcome is kept: 200.
const MAX_LOGGED_PUSHES: usize = 200;
/// Maximum number of messages of the customer service that are kept: 200.
const MAX_MESSAGES: usize = 200;

/// A message that a call of `message/custom/send` has sent to a user.
#[derive(Debug, Clone, Serialize)]
pub(in crate::simulator) struct CustomMessage {
    pub(in crate::simulator) app_id: String,
    pub(in crate::simulator) openid: String,
    pub(in crate::simulator) content: String,
}

#[derive(Debug)]
pub(super) struct PreAuthCode {
    pub(super) expires_at: Duration,
    pub(super) used: bool,
}

#[derive(Debug)]
pub(super) struct AuthorizationCode {
    pub(super) account: AppIndex,
    /// The authorization of the account that issued the code.
    pub(super) generation: u64,
    pub(super) expires_at: Duration,
    pub(super) used: bool,
}

/// One third-party platform: its settings, its accounts, and what it was issued.
#[derive(Debug)]
pub(in crate::simulator) struct PlatformState {
    pub(in crate::simulator) index: AppIndex,
    pub(in crate::simulator) keys: PushKeys,
    /// The keys before the last rotation.
    pub(in crate::simulator) former_keys: Option<PushKeys>,
    /// The URL of authorization events (授权事件接收URL).
    pub(in crate::simulator) push_url: Option<String>,
    /// The URL of messages and events (消息与事件接收URL), in which `$APPID$` stands for the account.
    pub(in crate::simulator) message_url: Option<String>,
    /// The hosts of pages that may open the authorize pages (授权发起页域名). `None` allows all.
    pub(in crate::simulator) authorize_hosts: Option<Vec<String>>,
    /// `false` after the pushes of tickets were stopped, until `api_start_push_ticket`.
    pub(in crate::simulator) pushes_tickets: bool,
    /// The time from which the interval to the next push of a ticket counts.
    pub(super) last_ticket_push: Duration,
    /// The verify tickets with the time of issue, the newest last.
    pub(super) tickets: Vec<(String, Duration)>,
    /// `true`: events of authorizations are not sent.
    pub(in crate::simulator) lose_events: bool,
    /// The time from an authorization to its event.
    pub(in crate::simulator) event_delay: Duration,
    /// `true`: the return of an authorization and its event contain two codes.
    pub(in crate::simulator) separate_codes: bool,
    /// The account that the authorize pages choose.
    pub(in crate::simulator) next_account: Option<AppIndex>,
    pub(super) pre_auth_codes: HashMap<String, PreAuthCode>,
    pub(super) codes: HashMap<String, AuthorizationCode>,
    pub(super) authorizers: Vec<Authorizer>,
    pub(super) positions: HashMap<AppIndex, usize>,
    pub(in crate::simulator) pushes: VecDeque<PushReply>,
}

impl PlatformState {
    fn new(index: AppIndex, now: Duration) -> Self {
        Self {
            index,
            keys: PushKeys {
                token: DEFAULT_TOKEN.to_owned(),
                aes_key: DEFAULT_AES_KEY.to_owned(),
            },
            former_keys: None,
            push_url: None,
            message_url: None,
            authorize_hosts: None,
            pushes_tickets: true,
            last_ticket_push: now,
            tickets: Vec::new(),
            lose_events: false,
            event_delay: Duration::ZERO,
            separate_codes: false,
            next_account: None,
            pre_auth_codes: HashMap::new(),
            codes: HashMap::new(),
            authorizers: Vec::new(),
            positions: HashMap::new(),
            pushes: VecDeque::new(),
        }
    }

    /// Replaces the keys. Pushes use the new keys from now on, as WeChat's do.
    pub(in crate::simulator) fn rotate_keys(&mut self, keys: PushKeys) {
        self.former_keys = Some(std::mem::replace(&mut self.keys, keys));
    }

    pub(in crate::simulator) fn latest_ticket(&self) -> Option<&str> {
        self.tickets.last().map(|(ticket, _)| ticket.as_str())
    }

    pub(super) fn issue_ticket(&mut self, now: Duration) -> String {
        let ticket = random::platform_secret("ticket");
        self.tickets.push((ticket.clone(), now));
        ticket
    }

    pub(in crate::simulator) fn authorizers(&self) -> &[Authorizer] {
        &self.authorizers
    }

    pub(in crate::simulator) fn authorizer(&self, account: AppIndex) -> Option<&Authorizer> {
        self.authorizers.get(*self.positions.get(&account)?)
    }

    pub(super) fn authorizer_mut(&mut self, account: AppIndex) -> Option<&mut Authorizer> {
        self.authorizers.get_mut(*self.positions.get(&account)?)
    }

    /// Returns the account's entry. Adds one if the account never authorized the platform.
    pub(super) fn authorizer_or_new(&mut self, account: AppIndex) -> &mut Authorizer {
        let next = self.authorizers.len();
        let position = *self.positions.entry(account).or_insert(next);
        if position == next {
            self.authorizers.push(Authorizer::new(account));
        }
        &mut self.authorizers[position]
    }

    /// Keeps the outcome of a push, and forgets the oldest ones.
    pub(super) fn log_push(&mut self, reply: PushReply) {
        if self.pushes.len() >= MAX_LOGGED_PUSHES {
            self.pushes.pop_front();
        }
        self.pushes.push_back(reply);
    }
}

/// All third-party platforms, the pushes that wait for their time, and the messages that accounts have
/// sent.
#[derive(Debug, Default)]
pub(in crate::simulator) struct Platforms {
    all: Vec<PlatformState>,
    pub(super) queue: PushQueue,
    pub(in crate::simulator) messages: VecDeque<CustomMessage>,
}

impl Platforms {
    pub(in crate::simulator) fn get(&self, index: AppIndex) -> Option<&PlatformState> {
        self.all.iter().find(|platform| platform.index == index)
    }

    /// Returns the platform. Adds one with default settings if the app was none before.
    pub(in crate::simulator) fn get_or_new(
        &mut self,
        index: AppIndex,
        now: Duration,
    ) -> &mut PlatformState {
        let known = self.all.iter().position(|platform| platform.index == index);
        let position = known.unwrap_or_else(|| {
            self.all.push(PlatformState::new(index, now));
            self.all.len() - 1
        });
        &mut self.all[position]
    }

    pub(in crate::simulator) fn iter(&self) -> impl Iterator<Item = &PlatformState> {
        self.all.iter()
    }

    /// Returns the platform if the simulator has exactly one.
    pub(in crate::simulator) fn only(&self) -> Option<AppIndex> {
        match &*self.all {
            [only] => Some(only.index),
            _ => None,
        }
    }

    pub(in crate::simulator) fn is_authorized(
        &self,
        component: AppIndex,
        account: AppIndex,
    ) -> bool {
        self.get(component)
            .and_then(|platform| platform.authorizer(account))
            .is_some_and(|authorizer| authorizer.is_authorized)
    }

    /// Queues a push for the task that sends pushes.
    pub(super) fn schedule(&mut self, delay: Duration, push: PreparedPush) {
        self.queue.add(delay, push);
    }

    /// Keeps a message of the customer service, and forgets the oldest ones.
    pub(in crate::simulator) fn record_message(&mut self, message: CustomMessage) {
        if self.messages.len() >= MAX_MESSAGES {
            self.messages.pop_front();
        }
        self.messages.push_back(message);
    }
}
