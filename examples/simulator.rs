//! Runs the simulator of WeChat as a separate program, for applications in any language.
//!
//! ```text
//! LISTEN=127.0.0.1:8000 WECHAT_APPID=wx... WECHAT_SECRET=... \
//!     cargo run --example simulator
//! ```
//!
//! All three variables are optional. The first line on stdout is `listening on http://ADDR`, and the second
//! line contains the AppID and the AppSecret. The documentation of `tower_wechat::simulator` lists the
//! requests that add users, advance the clock and inject faults.

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

use tower_wechat::simulator::Simulator;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("{sentence}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    let listen = read_variable("LISTEN")?.unwrap_or_else(|| "127.0.0.1:8000".to_owned());
    let mut builder = Simulator::builder().listen(&listen);
    match (
        read_variable("WECHAT_APPID")?,
        read_variable("WECHAT_SECRET")?,
    ) {
        (Some(app_id), Some(secret)) => builder = builder.app(app_id, secret),
        (None, None) => {}
        _ => return Err("Set WECHAT_APPID and WECHAT_SECRET both, or neither.".to_owned()),
    }
    let stop = stop_signal().map_err(|error| format!("Cannot wait for signals: {error}."))?;
    let sim = builder
        .start()
        .await
        .map_err(|error| format!("Cannot listen on LISTEN={listen}: {error}."))?;

    let mut stdout = io::stdout();
    // Errors are ignored, because the simulator also works if stdout is closed.
    let _ = writeln!(stdout, "listening on {}", sim.url());
    let _ = writeln!(stdout, "appid {} secret {}", sim.app_id(), sim.app_secret());
    let _ = stdout.flush();

    stop.await;
    sim.stop().await;
    Ok(())
}

/// Returns the value of a variable without spaces and line breaks around it. Returns `None` if nothing is
/// left.
fn read_variable(name: &str) -> Result<Option<String>, String> {
    match env::var(name) {
        Ok(value) => Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(format!("{name} is not UTF-8.")),
    }
}

/// Returns a future that ends on SIGTERM or Ctrl-C. The signal handlers exist when this function returns.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}
