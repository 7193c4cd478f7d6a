//! Faults: delays, errors and broken connections that a test injects.

use std::{fmt, time::Duration};

/// A failure that a test injects into the calls of one path, or of all paths.
///
/// A fault delays the call and then has one effect. If several effects are set, the first of this
/// list counts: reset, hang, lost reply, body, errcode, status. A fault without an effect leaves
/// the normal reply.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use std::time::Duration;
/// use tower_wechat::simulator::{Fault, Simulator};
///
/// let sim = Simulator::start().await?;
/// // The next two refreshes take a second and then get "system busy".
/// let busy = Fault::on("/sns/oauth2/refresh_token").delay(Duration::from_secs(1)).errcode(-1);
/// sim.inject(busy.times(2));
/// # sim.stop().await;
/// # Ok(())
/// # }
/// ```
///
/// Other faults:
///
/// ```
/// use tower_wechat::simulator::Fault;
///
/// let faults = [
///     Fault::on("/sns/userinfo").status(502).body("<html>Bad Gateway</html>"),
///     Fault::on("/sns/userinfo").body_bytes(b"{\"nickname\": \"\xe6\x9e".to_vec()),
///     // The call has no effect; has its effect, but the reply is lost; gets no reply.
///     Fault::on("*").reset(),
///     Fault::on("*").lose_reply(),
///     Fault::on("*").hang(),
/// ];
/// ```
#[derive(Clone, PartialEq, Eq)]
#[must_use = "a fault does nothing until it is injected"]
pub struct Fault {
    pub(super) path: String,
    pub(super) app_id: Option<String>,
    pub(super) delay: Duration,
    pub(super) options: FaultOptions,
    pub(super) times: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FaultOptions {
    pub(super) reset: bool,
    pub(super) hang: bool,
    pub(super) lose_reply: bool,
    pub(super) body: Option<Vec<u8>>,
    pub(super) errcode: Option<i64>,
    pub(super) status: Option<u16>,
}

/// The effect of a fault on one call, after the delay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// The call gets the reply that it would get without a fault. A fault may delay it.
    NormalReply,
    /// The simulator executes the call, and resets the connection before the reply.
    LoseReply,
    /// The connection is reset, and the call is not executed.
    Reset,
    /// The call is not executed and gets no reply until the simulator stops.
    Hang,
    /// The call is not executed, and gets this errcode with this HTTP status.
    Errcode { errcode: i64, status: u16 },
    /// The call is not executed, and gets this body with this HTTP status.
    Body { body: Vec<u8>, status: u16 },
}

impl Fault {
    /// Creates a fault of all calls whose path, without the query, equals `path`. With `"*"`, the
    /// fault applies to every path.
    pub fn on(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            app_id: None,
            delay: Duration::ZERO,
            options: FaultOptions::default(),
            times: None,
        }
    }

    /// Limits the fault to calls of the account or website app with this AppID. A call belongs to
    /// the app that its `appid` or its access token names. Default: the calls of all apps, and those
    /// that name none.
    pub fn app(mut self, app_id: impl Into<String>) -> Self {
        self.app_id = Some(app_id.into());
        self
    }

    /// Sets a delay before the effect. A fault that has only a delay delays the normal reply.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Replaces the reply by an error with this errcode and WeChat's text for it. The call has no
    /// effect.
    pub fn errcode(mut self, errcode: i64) -> Self {
        self.options.errcode = Some(errcode);
        self
    }

    /// Sets the HTTP status of the errcode or body. A fault that has only a status replies with an
    /// empty body. A number that is not a final status (200 to 599) becomes 500.
    pub fn status(mut self, status: u16) -> Self {
        self.options.status = Some(if (200..600).contains(&status) {
            status
        } else {
            500
        });
        self
    }

    /// Replaces the reply by this text. The call has no effect.
    pub fn body(self, body: impl Into<String>) -> Self {
        self.body_bytes(body.into().into_bytes())
    }

    /// Replaces the reply by these bytes, which need not be text. The call has no effect.
    pub fn body_bytes(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.options.body = Some(body.into());
        self
    }

    /// Resets the TCP connection before the first byte of the reply. The call has no effect.
    pub fn reset(mut self) -> Self {
        self.options.reset = true;
        self
    }

    /// Resets the TCP connection after the effect of the call and before the first byte of its
    /// reply. For the caller, this looks like [`reset`](Self::reset).
    pub fn lose_reply(mut self) -> Self {
        self.options.lose_reply = true;
        self
    }

    /// Leaves the call without a reply until the simulator stops. The call has no effect.
    pub fn hang(mut self) -> Self {
        self.options.hang = true;
        self
    }

    /// Sets the number of calls to which the fault applies. Default: all calls until
    /// [`Simulator::clear_faults`].
    ///
    /// [`Simulator::clear_faults`]: super::Simulator::clear_faults
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    fn effect(&self) -> Effect {
        let FaultOptions {
            reset,
            hang,
            lose_reply,
            body,
            errcode,
            status,
        } = self.options.clone();
        match (body, errcode) {
            _ if reset => Effect::Reset,
            _ if hang => Effect::Hang,
            _ if lose_reply => Effect::LoseReply,
            (Some(body), _) => Effect::Body {
                body,
                status: status.unwrap_or(200),
            },
            (None, Some(errcode)) => Effect::Errcode {
                errcode,
                status: status.unwrap_or(200),
            },
            (None, None) => status.map_or(Effect::NormalReply, |status| Effect::Body {
                body: Vec::new(),
                status,
            }),
        }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault")
            .field("path", &self.path)
            .field("app_id", &self.app_id)
            .field("delay", &self.delay)
            .field("effect", &self.effect())
            .field("times", &self.times)
            .finish()
    }
}

/// The injected faults that may still apply to a call.
#[derive(Debug, Default)]
pub(super) struct FaultList {
    faults: Vec<Fault>,
}

impl FaultList {
    pub(super) fn add(&mut self, fault: Fault) {
        if fault.times != Some(0) {
            self.faults.push(fault);
        }
    }

    pub(super) fn clear(&mut self) {
        self.faults.clear();
    }

    pub(super) fn all(&self) -> &[Fault] {
        &self.faults
    }

    /// Returns the delay and the effect of the fault that applies to a call of this path and apps.
    /// Counts the call, and removes the fault after the last of its times.
    ///
    /// Faults with a number of times apply first, in the order of their addition. Among faults
    /// without a number, the newest applies, so that a new fault replaces an old one.
    pub(super) fn take_for(&mut self, path: &str, app_ids: &[&str]) -> Option<(Duration, Effect)> {
        let matches = |fault: &Fault| {
            (fault.path == path || fault.path == "*")
                && fault
                    .app_id
                    .as_deref()
                    .is_none_or(|app_id| app_ids.contains(&app_id))
        };
        let counted = self
            .faults
            .iter()
            .position(|fault| matches(fault) && fault.times.is_some());
        let position = counted.or_else(|| self.faults.iter().rposition(matches))?;
        let fault = self.faults.get_mut(position)?;
        let delay_and_effect = (fault.delay, fault.effect());
        if let Some(times) = &mut fault.times {
            *times = times.saturating_sub(1);
            if *times == 0 {
                drop(self.faults.remove(position));
            }
        }
        Some(delay_and_effect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next_errcode(faults: &mut FaultList, path: &str) -> Option<i64> {
        match faults.take_for(path, &[])?.1 {
            Effect::Errcode { errcode, .. } => Some(errcode),
            _ => None,
        }
    }

    #[test]
    fn counted_faults_come_before_the_newest_unlimited_one() {
        let mut faults = FaultList::default();
        for fault in [
            Fault::on("/a").errcode(1),
            Fault::on("/a").errcode(2).times(1),
            Fault::on("/a").errcode(3).times(2),
            Fault::on("/a").errcode(4),
            Fault::on("/b").errcode(5),
        ] {
            faults.add(fault);
        }
        let hits: Vec<_> = (0..5).map(|_| next_errcode(&mut faults, "/a")).collect();
        assert_eq!(hits, [Some(2), Some(3), Some(3), Some(4), Some(4)]);
        assert_eq!(next_errcode(&mut faults, "/c"), None);
    }
}
