//! Gauges with the AppID of an account as a label.

use crate::clock::Timestamp;
use crate::credential::AppId;

/// The gauges of one kind of credential of an account, which have the AppID as a label.
///
/// A recorder never drops a series. Accounts of a dynamic registry therefore have no such
/// gauges: their number is not bounded.
pub(crate) struct AccountGauges {
    /// `None` if the gauges are switched off.
    #[cfg(feature = "metrics")]
    labels: Option<(AppId, &'static str)>,
    #[cfg(feature = "metrics")]
    has_expiry: bool,
}

/// Number of engines in this process for each account and kind with gauges.
#[cfg(feature = "metrics")]
static GAUGE_OWNERS: std::sync::Mutex<std::collections::BTreeMap<(AppId, &str), usize>> =
    std::sync::Mutex::new(std::collections::BTreeMap::new());

#[cfg_attr(not(feature = "metrics"), allow(unused_variables, clippy::unused_self))]
impl AccountGauges {
    /// Creates the gauges of an engine. `is_recorded` is `false` if the gauges are switched off.
    /// `has_expiry` is `true` for a credential of the account itself.
    pub(crate) fn new(
        app: &AppId,
        kind: &'static str,
        has_expiry: bool,
        is_recorded: bool,
    ) -> Self {
        #[cfg(feature = "metrics")]
        if is_recorded {
            *lock_gauge_owners().entry((app.clone(), kind)).or_default() += 1;
        }
        let gauges = Self {
            #[cfg(feature = "metrics")]
            labels: is_recorded.then(|| (app.clone(), kind)),
            #[cfg(feature = "metrics")]
            has_expiry,
        };
        // The gauges get a value at once, because dashboards show a missing series as an error.
        gauges.reset();
        gauges
    }

    /// Sets the gauge of the time at which the credential expires. Has no effect for credentials of
    /// users.
    pub(crate) fn set_expiry(&self, at: Timestamp) {
        #[cfg(feature = "metrics")]
        if self.has_expiry {
            self.set("wechat_credential_expires_timestamp_seconds", at);
        }
    }

    /// Sets the gauge of the time until which the circuit of the account is open.
    pub(crate) fn set_resting_until(&self, until: Timestamp) {
        #[cfg(feature = "metrics")]
        self.set("wechat_resting_until_timestamp_seconds", until);
    }

    /// Sets the gauges to the Unix epoch. It means that this process has not loaded the credential,
    /// and that the circuit is closed. No alert fires for this value.
    fn reset(&self) {
        let unix_epoch = Timestamp::from_millis(0);
        self.set_resting_until(unix_epoch);
        self.set_expiry(unix_epoch);
    }

    #[cfg(feature = "metrics")]
    fn set(&self, name: &'static str, time: Timestamp) {
        if let Some((app, kind)) = &self.labels {
            metrics::gauge!(name, "app" => app.as_str().to_owned(), "kind" => *kind)
                .set(time.as_millis() as f64 / 1_000.0);
        }
    }
}

#[cfg(feature = "metrics")]
impl Drop for AccountGauges {
    /// Resets the gauges with the last engine of the account, because no engine updates them any
    /// longer.
    fn drop(&mut self) {
        let Some(labels) = &self.labels else {
            return;
        };
        let mut owners = lock_gauge_owners();
        let left = owners.get_mut(labels).map_or(0, |count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left == 0 {
            owners.remove(labels);
            // The lock is held here. A new engine of the account sets its gauges afterwards.
            self.reset();
        }
    }
}

#[cfg(feature = "metrics")]
fn lock_gauge_owners()
-> std::sync::MutexGuard<'static, std::collections::BTreeMap<(AppId, &'static str), usize>> {
    GAUGE_OWNERS
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use super::*;

    const RESTING: &str = "wechat_resting_until_timestamp_seconds";
    const EXPIRES: &str = "wechat_credential_expires_timestamp_seconds";

    /// Returns what a recorder shows after `work`.
    fn recorded(work: impl FnOnce()) -> String {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, work);
        recorder.handle().render()
    }

    #[test]
    fn gauges_of_a_dropped_account_fire_no_alert() {
        let app = AppId::new("wxgauges1").unwrap();
        let later = Timestamp::from_millis(1_000_000);
        let create = || AccountGauges::new(&app, "access_token", true, true);
        let labels = r#"{app="wxgauges1",kind="access_token"}"#;
        let mut second = None;
        let shown = recorded(|| {
            let first = create();
            second = Some(create());
            first.set_expiry(later);
            first.set_resting_until(later);
        });
        assert!(
            shown.contains(&format!("{EXPIRES}{labels} 1000")),
            "{shown}"
        );
        assert!(
            shown.contains(&format!("{RESTING}{labels} 1000")),
            "{shown}"
        );
        let shown = recorded(|| drop(second));
        assert!(shown.contains(&format!("{EXPIRES}{labels} 0")), "{shown}");
        assert!(shown.contains(&format!("{RESTING}{labels} 0")), "{shown}");
        assert!(!lock_gauge_owners().contains_key(&(app, "access_token")));
    }

    #[test]
    fn an_account_without_gauges_makes_no_series() {
        let app = AppId::new("wxgauges2").unwrap();
        let shown = recorded(|| {
            let gauges = AccountGauges::new(&app, "access_token", true, false);
            gauges.set_expiry(Timestamp::from_millis(1_000));
            gauges.set_resting_until(Timestamp::from_millis(1_000));
        });
        assert!(!shown.contains("wxgauges2"), "{shown}");
    }
}
