//! The control routes of faults, and a fault as JSON.

use std::time::Duration;

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};

use super::{
    apps::find_app,
    reply::{ControlError, parse_json_body},
};
use crate::simulator::{
    faults::Fault,
    http::route::{CONTROL_PREFIX, SharedSimulator},
};

/// The JSON form of a [`Fault`] in control requests and their replies.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultJson {
    path: String,
    #[serde(default)]
    app_id: Option<String>,
    #[serde(default)]
    delay_ms: Option<u64>,
    #[serde(default)]
    errcode: Option<i64>,
    #[serde(default)]
    status: Option<u16>,
    #[serde(default)]
    body: Option<String>,
    /// The body of the faulty reply in base64, for a body that is not text.
    #[serde(default)]
    body_base64: Option<String>,
    #[serde(default)]
    reset: bool,
    #[serde(default)]
    hang: bool,
    #[serde(default)]
    lose_reply: bool,
    #[serde(default)]
    times: Option<u64>,
}

impl FaultJson {
    fn from_fault(fault: &Fault) -> Self {
        let effect = &fault.options;
        let text = effect
            .body
            .as_ref()
            .map(|body| String::from_utf8(body.clone()));
        let (body, body_base64) = match text {
            None => (None, None),
            Some(Ok(text)) => (Some(text), None),
            Some(Err(bytes)) => (None, Some(BASE64.encode(bytes.as_bytes()))),
        };
        Self {
            path: fault.path.clone(),
            app_id: fault.app_id.clone(),
            delay_ms: (!fault.delay.is_zero())
                .then(|| u64::try_from(fault.delay.as_millis()).unwrap_or(u64::MAX)),
            errcode: effect.errcode,
            status: effect.status,
            body,
            body_base64,
            reset: effect.reset,
            hang: effect.hang,
            lose_reply: effect.lose_reply,
            times: fault.times,
        }
    }

    /// Converts the JSON form into a fault.
    ///
    /// # Errors
    /// The path, status, delay, number of times or base64 is invalid, the fault does nothing, or
    /// its effects exclude each other.
    fn into_fault(self) -> Result<Fault, ControlError> {
        let answers = self.errcode.is_some() || self.status.is_some();
        let bodies = [
            self.body.is_some(),
            self.body_base64.is_some(),
            self.errcode.is_some(),
        ];
        let breaks = [self.reset, self.hang, self.lose_reply];
        let number_of = |flags: &[bool]| flags.iter().filter(|flag| **flag).count();
        let (bodies, breaks) = (number_of(&bodies), number_of(&breaks));
        if self.path != "*" && (!self.path.starts_with('/') || self.path.contains('?')) {
            return Err("`path` must be a path without a query, or \"*\" for all".into());
        }
        if self.path.starts_with(CONTROL_PREFIX) {
            return Err("control routes have no faults".into());
        }
        if self.delay_ms.is_none() && !answers && bodies + breaks == 0 {
            return Err(
                "the fault does nothing: give `delay_ms`, `errcode`, `status`, `body`, \
                        `reset`, `hang` or `lose_reply`"
                    .into(),
            );
        }
        if bodies > 1 || breaks > 1 || (breaks == 1 && (answers || bodies > 0)) {
            return Err(
                "only one of `errcode`, `body`, `body_base64`, `reset`, `hang` and \
                        `lose_reply` can happen, and `status` goes with the first three"
                    .into(),
            );
        }
        if self
            .status
            .is_some_and(|status| !(200..600).contains(&status))
        {
            return Err("`status` must be from 200 to 599".into());
        }
        if self.times == Some(0) {
            return Err("`times` must be at least 1; leave it out for all calls".into());
        }
        let mut fault = Fault::on(self.path);
        fault.app_id = self.app_id;
        fault.delay = Duration::from_millis(self.delay_ms.unwrap_or(0));
        if fault.delay > Duration::from_secs(24 * 3600) {
            return Err("`delay_ms` is longer than a day".into());
        }
        fault.times = self.times;
        fault.options.reset = self.reset;
        fault.options.hang = self.hang;
        fault.options.lose_reply = self.lose_reply;
        fault.options.errcode = self.errcode;
        fault.options.status = self.status;
        fault.options.body =
            match (self.body, self.body_base64) {
                (Some(text), _) => Some(text.into_bytes()),
                (None, Some(coded)) => Some(BASE64.decode(coded).map_err(|error| {
                    ControlError(format!("`body_base64` is no Base64: {error}"))
                })?),
                (None, None) => None,
            };
        Ok(fault)
    }
}

pub(super) async fn faults(State(shared): SharedSimulator) -> Response {
    let faults: Vec<_> = shared
        .lock()
        .faults
        .all()
        .iter()
        .map(FaultJson::from_fault)
        .collect();
    Json(faults).into_response()
}

pub(super) async fn add_fault(
    State(shared): SharedSimulator,
    body: Bytes,
) -> Result<Response, ControlError> {
    let fault = parse_json_body::<FaultJson>(&body)?.into_fault()?;
    let shown = FaultJson::from_fault(&fault);
    let mut wechat = shared.lock();
    if let Some(app_id) = &fault.app_id {
        find_app(&wechat, app_id)?;
    }
    wechat.faults.add(fault);
    Ok(Json(shown).into_response())
}

pub(super) async fn clear_faults(State(shared): SharedSimulator) -> StatusCode {
    shared.lock().faults.clear();
    StatusCode::NO_CONTENT
}
