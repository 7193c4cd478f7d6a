//! A platform for tests, which returns component tokens in order and records its calls.

use std::sync::{Arc, Mutex};

use crate::client::AccountTokenResponse;
use crate::credential::{AccessToken, AppId};
use crate::error::Error;
use crate::store::BoxFuture;
use crate::wechat::PlatformAuthority;

/// A call of the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Token,
    Reported(String),
    NotAuthorized(String),
    Renewed(String),
}

type Renewal = dyn Fn(usize) -> Result<AccountTokenResponse, Error> + Send + Sync;

/// A platform whose component tokens are `comp-t0ken-1`, `comp-t0ken-2`, and so on.
pub(crate) struct FakeAuthority {
    component: AppId,
    calls: Mutex<Vec<Call>>,
    current: Mutex<usize>,
    /// `true` if a report does not replace the token.
    keeps_token: bool,
    /// The error of reports.
    report_error: Option<Error>,
    /// The error of the platform while it has no component token.
    pub(crate) unavailable: Mutex<Option<Error>>,
    /// Returns the next token of an account, by the number of the renewal.
    renewal: Box<Renewal>,
}

impl Default for FakeAuthority {
    fn default() -> Self {
        Self {
            component: AppId::new("wxcomp").unwrap(),
            calls: Mutex::default(),
            current: Mutex::new(1),
            keeps_token: false,
            report_error: None,
            unavailable: Mutex::default(),
            renewal: Box::new(|at| {
                Ok(AccountTokenResponse::new(
                    format!("authorizer-{at}"),
                    Some(7_200),
                ))
            }),
        }
    }
}

impl FakeAuthority {
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    pub(crate) fn keeping_its_token(mut self) -> Self {
        self.keeps_token = true;
        self
    }

    pub(crate) fn failing_reports(mut self, error: Error) -> Self {
        self.report_error = Some(error);
        self
    }

    pub(crate) fn with_renewal(
        mut self,
        renewal: impl Fn(usize) -> Result<AccountTokenResponse, Error> + Send + Sync + 'static,
    ) -> Self {
        self.renewal = Box::new(renewal);
        self
    }

    pub(crate) fn shared(self) -> (Arc<Self>, Arc<dyn PlatformAuthority>) {
        let own = Arc::new(self);
        (Arc::clone(&own), own)
    }

    fn record(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }

    fn token(&self) -> Result<AccessToken, Error> {
        if let Some(error) = &*self.unavailable.lock().unwrap() {
            return Err(error.clone());
        }
        let current = self.current.lock().unwrap();
        Ok(AccessToken::from(format!("comp-t0ken-{current}")))
    }
}

impl std::fmt::Debug for FakeAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FakeAuthority")
    }
}

impl PlatformAuthority for FakeAuthority {
    fn component(&self) -> &AppId {
        &self.component
    }

    fn component_token<'a>(&'a self) -> BoxFuture<'a, Result<AccessToken, Error>> {
        Box::pin(async move {
            self.record(Call::Token);
            self.token()
        })
    }

    fn report_component_token<'a>(
        &'a self,
        invalid: &'a AccessToken,
    ) -> BoxFuture<'a, Result<AccessToken, Error>> {
        Box::pin(async move {
            self.record(Call::Reported(invalid.expose().to_owned()));
            if let Some(error) = &self.report_error {
                return Err(error.clone());
            }
            if !self.keeps_token {
                *self.current.lock().unwrap() += 1;
            }
            self.token()
        })
    }

    fn note_not_authorized(&self, account: &AppId) {
        self.record(Call::NotAuthorized(account.as_str().to_owned()));
    }

    fn renew_authorizer_token<'a>(
        &'a self,
        account: &'a AppId,
        _before: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<AccountTokenResponse, Error>> {
        Box::pin(async move {
            self.record(Call::Renewed(account.as_str().to_owned()));
            let renewed = |call: &&Call| matches!(call, Call::Renewed(_));
            let at = self.calls().iter().filter(renewed).count();
            self.token()
                .map_err(|error| error.as_missing_prerequisite())?;
            (self.renewal)(at)
        })
    }
}
