//! The control route of third-party platforms.

use std::time::Duration;

use axum::{
    Json,
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use super::reply::{ControlError, parse_json_body};
use crate::simulator::{
    app_index::AppIndex,
    http::route::SharedSimulator,
    platform::{
        CustomMessage, PlatformState, PushKeys, PushKind, PushReply, SimulatedPush, check_aes_key,
        push_and_wait,
    },
    state::SimulatedWechat,
};

/// Maximum number of further deliveries of a push: 1,000.
const MAX_REPEAT: u32 = 1_000;
/// Maximum delay of a push and of the events of authorizations: one minute.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// The body of `POST /_sim/platform`: settings of a platform, and at most one action.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PlatformRequest {
    #[serde(alias = "appid")]
    app_id: Option<String>,
    secret: Option<String>,
    token: Option<String>,
    aes_key: Option<String>,
    push_url: Option<String>,
    message_url: Option<String>,
    authorize_hosts: Option<Vec<String>>,
    redirect_hosts: Option<Vec<String>>,
    next_account: Option<String>,
    lose_events: Option<bool>,
    delay_events_secs: Option<u64>,
    separate_codes: Option<bool>,
    push_tickets: Option<bool>,
    rotate_token: Option<String>,
    rotate_key: Option<String>,

    authorize: Option<String>,
    permissions: Option<Vec<u32>>,
    exchanged: bool,
    revoke: Option<String>,
    push: Option<String>,

    account: Option<String>,
    openid: Option<String>,
    content: Option<String>,
    event: Option<String>,
    fields: Option<Vec<(String, String)>>,
    same_value: bool,
    repeat: u32,
    delay_secs: u64,
    age_secs: u64,
    wrong_signature: bool,
    former_keys: bool,
    component: Option<String>,
}

#[derive(Serialize)]
struct AuthorizerJson {
    app_id: String,
    authorized: bool,
    exchanged: bool,
    refresh_token: String,
    access_token: Option<String>,
    auth_time_secs: u64,
    permissions: Vec<u32>,
}

#[derive(Serialize)]
struct PlatformJson {
    app_id: String,
    secret: String,
    token: String,
    aes_key: String,
    push_url: Option<String>,
    message_url: Option<String>,
    authorize_hosts: Option<Vec<String>>,
    redirect_hosts: Option<Vec<String>>,
    next_account: Option<String>,
    lose_events: bool,
    delay_events_secs: u64,
    separate_codes: bool,
    push_tickets: bool,
    ticket: Option<String>,
    component_token: Option<String>,
    accounts: Vec<AuthorizerJson>,
    pushes: Vec<PushReply>,
    messages: Vec<CustomMessage>,
}

impl PlatformJson {
    fn new(wechat: &SimulatedWechat, platform: &PlatformState) -> Self {
        let app = &wechat.apps[platform.index];
        let account = |index: AppIndex| wechat.apps[index].app_id.clone();
        let authorizers = platform.authorizers().iter();
        Self {
            app_id: app.app_id.clone(),
            secret: app.secret.clone(),
            token: platform.keys.token.clone(),
            aes_key: platform.keys.aes_key.clone(),
            push_url: platform.push_url.clone(),
            message_url: platform.message_url.clone(),
            authorize_hosts: platform.authorize_hosts.clone(),
            redirect_hosts: app.redirect_hosts.clone(),
            next_account: platform.next_account.map(account),
            lose_events: platform.lose_events,
            delay_events_secs: platform.event_delay.as_secs(),
            separate_codes: platform.separate_codes,
            push_tickets: platform.pushes_tickets,
            ticket: platform.latest_ticket().map(str::to_owned),
            component_token: app.account_tokens.latest().map(str::to_owned),
            accounts: authorizers
                .map(|authorizer| AuthorizerJson {
                    app_id: account(authorizer.account),
                    authorized: authorizer.is_authorized,
                    exchanged: authorizer.is_exchanged,
                    refresh_token: authorizer.refresh_token.clone(),
                    access_token: authorizer.access_token.clone(),
                    auth_time_secs: authorizer.authorized_at.as_secs(),
                    permissions: authorizer.permissions.clone(),
                })
                .collect(),
            pushes: platform.pushes.iter().cloned().collect(),
            messages: wechat.platforms.messages.iter().cloned().collect(),
        }
    }
}

/// The reply of `POST /_sim/platform`.
#[derive(Serialize)]
struct PlatformReply {
    app_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorization_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<bool>,
    pushes: Vec<PushReply>,
}

pub(super) async fn platforms(State(shared): SharedSimulator) -> Response {
    let wechat = shared.lock();
    let platforms = wechat.platforms.iter();
    let platforms: Vec<_> = platforms
        .map(|platform| PlatformJson::new(&wechat, platform))
        .collect();
    Json(platforms).into_response()
}

/// Changes a platform, and then does at most one action: `authorize`, `revoke` or `push`.
pub(super) async fn steer(
    State(shared): SharedSimulator,
    body: Bytes,
) -> Result<Response, ControlError> {
    let request: PlatformRequest = parse_json_body(&body)?;
    request.check()?;
    let (component, mut reply, push) = {
        let mut wechat = shared.lock();
        let component = request.find_or_add(&mut wechat)?;
        request.change(&mut wechat, component)?;
        let mut reply = PlatformReply {
            app_id: wechat.apps[component].app_id.clone(),
            authorization_code: None,
            revoked: None,
            pushes: Vec::new(),
        };
        let push = request.act(&mut wechat, component, &mut reply)?;
        (component, reply, push)
    };
    if let Some(push) = push {
        reply.pushes = push_and_wait(&shared, component, &push)
            .await
            .map_err(ControlError)?;
    }
    Ok(Json(reply).into_response())
}

impl PlatformRequest {
    fn check(&self) -> Result<(), ControlError> {
        let actions = [&self.authorize, &self.revoke, &self.push];
        if actions.iter().filter(|action| action.is_some()).count() > 1 {
            return Err("only one of `authorize`, `revoke` and `push` can happen".into());
        }
        for key in [&self.aes_key, &self.rotate_key].into_iter().flatten() {
            check_aes_key(key).map_err(ControlError)?;
        }
        if self.repeat > MAX_REPEAT {
            return Err("`repeat` is more than 1,000".into());
        }
        let delays = [Some(self.delay_secs), self.delay_events_secs];
        if delays
            .into_iter()
            .flatten()
            .any(|secs| secs > MAX_DELAY.as_secs())
        {
            return Err("a delay is longer than a minute".into());
        }
        Ok(())
    }

    /// Returns the platform of the request. With a secret, adds it or replaces its secret.
    fn find_or_add(&self, wechat: &mut SimulatedWechat) -> Result<AppIndex, ControlError> {
        match (&self.app_id, &self.secret) {
            (Some(app_id), Some(secret)) if !app_id.is_empty() && !secret.is_empty() => {
                Ok(wechat.add_platform(app_id.clone(), secret.clone()))
            }
            (_, Some(_)) => Err("`app_id` or `secret` is empty".into()),
            (Some(app_id), None) => wechat.find_platform(Some(app_id)).map_err(|_| {
                let reason = "give its `secret` to add it";
                ControlError(format!(
                    "the simulator has no platform `{app_id}`: {reason}"
                ))
            }),
            (None, None) => wechat
                .platforms
                .only()
                .ok_or_else(|| "name the platform in `app_id`".into()),
        }
    }

    fn change(
        &self,
        wechat: &mut SimulatedWechat,
        component: AppIndex,
    ) -> Result<(), ControlError> {
        let next_account = match &self.next_account {
            Some(app_id) => Some(wechat.account_or_new(app_id).map_err(ControlError)?),
            None => None,
        };
        if let Some(hosts) = &self.redirect_hosts {
            wechat.apps[component].redirect_hosts = Some(hosts.clone());
        }
        let platform = wechat.platform(component);
        set(&mut platform.keys.token, self.token.as_ref());
        set(&mut platform.keys.aes_key, self.aes_key.as_ref());
        for (known, new) in [
            (&mut platform.push_url, &self.push_url),
            (&mut platform.message_url, &self.message_url),
        ] {
            if let Some(new) = new {
                // An empty text removes the URL.
                *known = Some(new.clone()).filter(|url| !url.is_empty());
            }
        }
        if self.authorize_hosts.is_some() {
            platform.authorize_hosts.clone_from(&self.authorize_hosts);
        }
        if next_account.is_some() {
            platform.next_account = next_account;
        }
        set(&mut platform.lose_events, self.lose_events.as_ref());
        set(&mut platform.separate_codes, self.separate_codes.as_ref());
        set(&mut platform.pushes_tickets, self.push_tickets.as_ref());
        let delay = self.delay_events_secs.map(Duration::from_secs);
        set(&mut platform.event_delay, delay.as_ref());
        if self.rotate_token.is_some() || self.rotate_key.is_some() {
            let mut keys: PushKeys = platform.keys.clone();
            set(&mut keys.token, self.rotate_token.as_ref());
            set(&mut keys.aes_key, self.rotate_key.as_ref());
            platform.rotate_keys(keys);
        }
        Ok(())
    }

    /// Does the action of the request, and returns the push that belongs to it.
    fn act(
        &self,
        wechat: &mut SimulatedWechat,
        component: AppIndex,
        reply: &mut PlatformReply,
    ) -> Result<Option<SimulatedPush>, ControlError> {
        let (is_lost, has_url) = {
            let platform = wechat.platform(component);
            (platform.lose_events, platform.push_url.is_some())
        };
        let event = |push| (!is_lost && has_url).then_some(push);
        if let Some(account) = &self.authorize {
            let index = wechat.account_or_new(account).map_err(ControlError)?;
            let permissions = self.permissions.clone();
            let code = wechat.authorize_account(component, index, permissions, None);
            if self.exchanged {
                let exchanged = wechat.query_auth(component, &code);
                exchanged.map_err(|_| "the code of the authorization has no lifetime")?;
                return Ok(None);
            }
            reply.authorization_code = Some(code);
            return Ok(event(self.with_options(SimulatedPush::authorized(account))));
        }
        if let Some(account) = &self.revoke {
            let index = wechat.known_account(account).map_err(ControlError)?;
            let revoked = wechat.revoke_account(component, index);
            reply.revoked = Some(revoked);
            let push = self.with_options(SimulatedPush::unauthorized(account));
            return Ok(event(push).filter(|_| revoked));
        }
        let Some(kind) = &self.push else {
            return Ok(None);
        };
        let kind = self.push_kind(kind, wechat, component, reply)?;
        Ok(Some(self.with_options(SimulatedPush::new(kind))))
    }

    fn push_kind(
        &self,
        kind: &str,
        wechat: &mut SimulatedWechat,
        component: AppIndex,
        reply: &mut PlatformReply,
    ) -> Result<PushKind, ControlError> {
        let account = || match &self.account {
            Some(account) => Ok(account.clone()),
            None => Err(ControlError("this push needs an `account`".to_owned())),
        };
        let openid = self.openid.clone();
        let openid = openid.unwrap_or_else(|| wechat.users.active_openid().to_owned());
        let content = self.content.clone().unwrap_or_default();
        Ok(match kind {
            "ticket" => PushKind::Ticket {
                same_value: self.same_value,
            },
            "authorized" | "updateauthorized" => PushKind::Authorized {
                account: account()?,
            },
            "unauthorized" => PushKind::Unauthorized {
                account: account()?,
            },
            "text" => PushKind::Text {
                account: account()?,
                openid,
                content,
            },
            "release_test_text" => PushKind::Text {
                account: account()?,
                openid,
                content: "TESTCOMPONENT_MSG_TYPE_TEXT".to_owned(),
            },
            "release_test_api" => {
                let account = account()?;
                let index = wechat.account_or_new(&account).map_err(ControlError)?;
                let code = wechat.authorize_account(component, index, None, None);
                reply.authorization_code = Some(code.clone());
                PushKind::Text {
                    account,
                    openid,
                    content: format!("QUERY_AUTH_CODE:{code}"),
                }
            }
            "event" => PushKind::UserEvent {
                account: account()?,
                openid,
                event: self.event.clone().unwrap_or_else(|| "subscribe".to_owned()),
            },
            "xml" => PushKind::Xml { text: content },
            info_type => PushKind::Event {
                info_type: info_type.to_owned(),
                fields: self.fields.clone().unwrap_or_default(),
            },
        })
    }

    fn with_options(&self, push: SimulatedPush) -> SimulatedPush {
        SimulatedPush {
            repeat: self.repeat,
            delay: Duration::from_secs(self.delay_secs),
            age: Duration::from_secs(self.age_secs),
            wrong_signature: self.wrong_signature,
            former_keys: self.former_keys,
            component: self.component.clone(),
            ..push
        }
    }
}

/// Sets `known` to the new value, if the request has one.
fn set<T: Clone>(known: &mut T, new: Option<&T>) {
    if let Some(new) = new {
        known.clone_from(new);
    }
}
