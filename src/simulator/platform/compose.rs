//! Makes pushes: their XML, their signature and their envelope.

use std::time::Duration;

use super::{
    cipher,
    message::Xml,
    prepared_push::{PreparedPush, PushKeys},
    push::{PushKind, SimulatedPush},
};
use crate::simulator::{
    app_index::AppIndex, issue_log::IssuedKind, random, state::SimulatedWechat,
};

impl SimulatedWechat {
    /// Queues a push, unless the platform has no URL for it.
    pub(in crate::simulator) fn schedule_push(
        &mut self,
        component: AppIndex,
        push: &SimulatedPush,
        delay: Duration,
    ) {
        if let Ok(prepared) = self.prepare_push(component, push) {
            self.platforms.schedule(delay, prepared);
        }
    }

    /// Makes, signs and encrypts a push.
    ///
    /// # Errors
    /// Returns a sentence that says what is missing.
    pub(in crate::simulator) fn prepare_push(
        &mut self,
        component: AppIndex,
        push: &SimulatedPush,
    ) -> Result<PreparedPush, String> {
        let now = self.now();
        let created = now.saturating_sub(push.age).as_secs();
        let component_id = push
            .component
            .clone()
            .unwrap_or_else(|| self.apps[component].app_id.clone());
        let content = self.push_content(component, &component_id, &push.kind, created)?;
        let platform = self.platform(component);
        let keys = match &platform.former_keys {
            _ if !push.former_keys => &platform.keys,
            Some(former) => former,
            None => return Err("the keys of pushes were never rotated".to_owned()),
        };
        let prepared = seal(
            component,
            component_id,
            keys.clone(),
            content,
            created,
            push,
        );
        if matches!(push.kind, PushKind::Ticket { .. }) {
            platform.last_ticket_push = now;
        }
        prepared
    }

    fn push_content(
        &mut self,
        component: AppIndex,
        component_id: &str,
        kind: &PushKind,
        created: u64,
    ) -> Result<Content, String> {
        let event = |info_type: &str| {
            Xml::new()
                .text("AppId", component_id)
                .number("CreateTime", created)
                .text("InfoType", info_type)
        };
        let (name, xml) = match kind {
            PushKind::Ticket { same_value } => {
                self.event_url(component)?;
                let now = self.now();
                let platform = self.platform(component);
                let known = platform.latest_ticket().filter(|_| *same_value);
                let ticket = match known.map(ToOwned::to_owned) {
                    Some(ticket) => ticket,
                    None => {
                        let ticket = platform.issue_ticket(now);
                        self.log_secret(component, IssuedKind::VerifyTicket, &ticket);
                        ticket
                    }
                };
                let name = "component_verify_ticket";
                (name, event(name).text("ComponentVerifyTicket", &ticket))
            }
            PushKind::Authorized { account } => {
                let account_index = self.known_account(account)?;
                let authorizer = self.platform(component).authorizer(account_index);
                let authorizer = authorizer
                    .filter(|authorizer| authorizer.generation > 0)
                    .ok_or_else(|| {
                        format!("the account {account} never authorized the platform")
                    })?;
                let name = if authorizer.is_update {
                    "updateauthorized"
                } else {
                    "authorized"
                };
                let expires_at = authorizer.event_code_expires_at.as_secs().to_string();
                let xml = event(name)
                    .text("AuthorizerAppid", account)
                    .text("AuthorizationCode", &authorizer.event_code)
                    .text("AuthorizationCodeExpiredTime", &expires_at)
                    .text("PreAuthCode", &authorizer.event_pre_auth_code);
                (name, xml)
            }
            PushKind::Unauthorized { account } => {
                let name = "unauthorized";
                (name, event(name).text("AuthorizerAppid", account))
            }
            PushKind::Event { info_type, fields } => {
                let xml = fields
                    .iter()
                    .fold(event(info_type), |xml, (name, value)| xml.text(name, value));
                (&**info_type, xml)
            }
            PushKind::Xml { text } => {
                return Ok(Content {
                    name: "xml".to_owned(),
                    url: self.event_url(component)?,
                    to: ("AppId", component_id.to_owned()),
                    openid: None,
                    message: text.clone(),
                });
            }
            PushKind::Text {
                account,
                openid,
                content,
            } => {
                let fields = |xml: Xml| xml.text("Content", content);
                return self.user_message(component, account, openid, created, "text", fields);
            }
            PushKind::UserEvent {
                account,
                openid,
                event,
            } => {
                let fields = |xml: Xml| xml.text("Event", event).text("EventKey", "");
                return self.user_message(component, account, openid, created, "event", fields);
            }
        };
        Ok(Content {
            name: name.to_owned(),
            url: self.event_url(component)?,
            to: ("AppId", component_id.to_owned()),
            openid: None,
            message: xml.finish(),
        })
    }

    fn user_message(
        &mut self,
        component: AppIndex,
        account: &str,
        openid: &str,
        created: u64,
        kind: &str,
        fields: impl FnOnce(Xml) -> Xml,
    ) -> Result<Content, String> {
        let url = self.platform(component).message_url.clone();
        let url = url.ok_or("the platform has no message_url")?;
        let index = self.known_account(account)?;
        let openid = self.openid_in(index, openid);
        let to = random::original_id(account);
        let xml = Xml::new()
            .text("ToUserName", &to)
            .text("FromUserName", &openid)
            .number("CreateTime", created)
            .text("MsgType", kind);
        let xml = fields(xml);
        let xml = if kind == "event" {
            xml
        } else {
            xml.number("MsgId", fastrand::u64(1 << 60..1 << 61))
        };
        Ok(Content {
            name: kind.to_owned(),
            url: url.replace("$APPID$", account),
            to: ("ToUserName", to),
            openid: Some(openid),
            message: xml.finish(),
        })
    }

    fn event_url(&mut self, component: AppIndex) -> Result<String, String> {
        let url = self.platform(component).push_url.clone();
        url.ok_or_else(|| "the platform has no push_url".to_owned())
    }
}

/// The text of a push, and where it goes.
struct Content {
    name: String,
    url: String,
    /// The element of the envelope that names the recipient.
    to: (&'static str, String),
    /// The user who has sent the message, in the query of the push.
    openid: Option<String>,
    message: String,
}

/// Encrypts and signs a push.
fn seal(
    component: AppIndex,
    component_id: String,
    keys: PushKeys,
    content: Content,
    created: u64,
    push: &SimulatedPush,
) -> Result<PreparedPush, String> {
    cipher::check_aes_key(&keys.aes_key)?;
    let encrypted = cipher::encrypt(&keys.aes_key, &content.message, &component_id)
        .ok_or("the message is too long")?;
    let timestamp = created.to_string();
    let nonce = fastrand::u32(100_000_000..2_000_000_000).to_string();
    let signature = cipher::signature(&mut [&keys.token, &timestamp, &nonce]);
    let signed_token = if push.wrong_signature {
        format!("not {}", keys.token)
    } else {
        keys.token.clone()
    };
    let msg_signature = cipher::signature(&mut [&signed_token, &timestamp, &nonce, &encrypted]);
    let openid = content
        .openid
        .map(|openid| format!("&openid={openid}"))
        .unwrap_or_default();
    let (to, recipient) = content.to;
    Ok(PreparedPush {
        component,
        app_id: component_id,
        keys,
        name: content.name,
        url: content.url,
        query: format!(
            "signature={signature}&timestamp={timestamp}&nonce={nonce}{openid}\
             &encrypt_type=aes&msg_signature={msg_signature}"
        ),
        body: Xml::new()
            .text(to, &recipient)
            .text("Encrypt", &encrypted)
            .finish(),
    })
}
