//! Calls of the application's own code, whose errors, panics and delays must not harm the layer.

use std::any::Any;
use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tracing::Instrument;

/// Runs the future of the application for `timeout` at most, and returns its result. `name` stands
/// for the application's code in the texts of errors.
///
/// The future runs in a separate task. A panic therefore ends that task only, and code that blocks
/// its thread does not delay the timeout. On timeout, the future is dropped.
///
/// # Errors
/// Returns the reason if the future panicked or did not end in time.
pub(crate) async fn run_guarded<F>(
    name: &str,
    timeout: Duration,
    call: F,
) -> Result<F::Output, String>
where
    F: Future<Output: Send> + Send + 'static,
{
    let mut task = AbortOnDrop(tokio::spawn(call.in_current_span()));
    match tokio::time::timeout(timeout, &mut task.0).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(error)) => Err(panic_text(name, error)),
        Err(_) => Err(format!("the {name} did not end within {timeout:?}")),
    }
}

/// Runs a function of the application, and returns its result. `name` stands for the function in the
/// text of the error. What the function changed before a panic must not be used again.
///
/// # Errors
/// Returns the reason if the function panicked.
pub(crate) fn catch_panic<T>(name: &str, call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| panic_message(name, &*panic))
}

/// A task that is aborted when its handle is dropped.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Returns the messages of an error and of its sources, separated by colons.
pub(crate) fn error_chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let message = error.to_string();
        // Some errors repeat the message of their source.
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        source = error.source();
    }
    text
}

/// Returns the reason why a task of the application has no result.
fn panic_text(name: &str, error: tokio::task::JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => panic_message(name, &*panic),
        Err(_) => format!("the {name} was cancelled, because the runtime shuts down"),
    }
}

/// Returns the message of a panic, or a text without a message for other values.
fn panic_message(name: &str, panic: &(dyn Any + Send)) -> String {
    let message = match panic.downcast_ref::<String>() {
        Some(message) => Some(message.as_str()),
        None => panic.downcast_ref::<&str>().copied(),
    };
    match message {
        Some(message) => format!("the {name} panicked: {message}"),
        None => format!("the {name} panicked"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_of_an_error_names_its_sources() {
        #[derive(Debug, thiserror::Error)]
        #[error("no row")]
        struct NoRow;
        #[derive(Debug, thiserror::Error)]
        #[error("the query failed")]
        struct Query(#[source] NoRow);
        #[derive(Debug, thiserror::Error)]
        #[error("the query failed")]
        struct Transparent(#[source] Query);
        assert_eq!(error_chain(&Query(NoRow)), "the query failed: no row");
        assert_eq!(
            error_chain(&Transparent(Query(NoRow))),
            "the query failed: no row"
        );
    }
}
