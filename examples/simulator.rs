//! Runs the simulator of WeChat as a separate program, for applications in any language.
//!
//! ```text
//! LISTEN=127.0.0.1:8000 WECHAT_APPID=wx... WECHAT_SECRET=... \
//!     cargo run --example simulator
//! ```
//!
//! All variables are optional. For several accounts, set `WECHAT_ACCOUNTS=APPID:SECRET,APPID:SECRET` instead of
//! the last two. `WEBSITE_APPID` and `WEBSITE_SECRET` add a website app (网站应用), whose login page shows a QR
//! code. `PLATFORM_APPID` and `PLATFORM_SECRET` add a third-party platform (第三方平台), to which
//! `PLATFORM_PUSH_URL` is the URL of tickets and authorization events, and `PLATFORM_MESSAGE_URL` that of users'
//! messages. `PLATFORM_TOKEN` and `PLATFORM_AES_KEY` sign and encrypt the pushes. If they list several, separated by
//! commas, the simulator uses the first. The first line on stdout is `listening on http://ADDR`. Each further
//! line contains the AppID and the AppSecret of an app, first those of the first account. The documentation of
//! `tower_wechat::simulator` lists the requests that add apps and users, authorize accounts, send pushes, advance the
//! clock and inject faults.

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

use tower_wechat::simulator::{SimulatedPlatform, Simulator};

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
    let mut accounts = read_accounts()?.into_iter();
    let website = read_app("WEBSITE_APPID", "WEBSITE_SECRET")?;
    let platform = read_app("PLATFORM_APPID", "PLATFORM_SECRET")?;
    let mut builder = Simulator::builder().listen(&listen);
    if let Some((app_id, secret)) = accounts.next() {
        builder = builder.app(app_id, secret);
    }
    let stop = stop_signal().map_err(|error| format!("Cannot wait for signals: {error}."))?;
    let sim = builder
        .start()
        .await
        .map_err(|error| format!("Cannot listen on LISTEN={listen}: {error}."))?;
    let others: Vec<_> = accounts
        .map(|(app_id, secret)| sim.add_account(app_id, secret))
        .collect();
    let website = website.map(|(app_id, secret)| sim.add_website(app_id, secret));

    let platform = match platform {
        Some((app_id, secret)) => Some(set_up(sim.add_platform(app_id, secret))?),
        None => None,
    };
    let platform = platform.as_ref().map(SimulatedPlatform::app);

    let mut stdout = io::stdout();
    // Errors are ignored, because the simulator also works if stdout is closed.
    let _ = writeln!(stdout, "listening on {}", sim.url());
    let _ = writeln!(stdout, "appid {} secret {}", sim.app_id(), sim.app_secret());
    for app in others.iter().chain(&website).chain(platform) {
        let _ = writeln!(stdout, "appid {} secret {}", app.app_id(), app.app_secret());
    }
    let _ = stdout.flush();

    stop.await;
    sim.stop().await;
    Ok(())
}

/// Sets up the platform as the variables say.
fn set_up(mut platform: SimulatedPlatform) -> Result<SimulatedPlatform, String> {
    if let Some(token) = read_variable("PLATFORM_TOKEN")? {
        platform = platform.token(first_of(&token));
    }
    if let Some(key) = read_variable("PLATFORM_AES_KEY")? {
        let key = first_of(&key);
        if key.len() != 43 || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err("Set PLATFORM_AES_KEY to 43 letters and digits.".to_owned());
        }
        platform = platform.aes_key(key);
    }
    if let Some(url) = read_variable("PLATFORM_PUSH_URL")? {
        platform = platform.push_url(url);
    }
    if let Some(url) = read_variable("PLATFORM_MESSAGE_URL")? {
        platform = platform.message_url(url);
    }
    Ok(platform)
}

/// Returns the first entry of a list, without spaces around it.
fn first_of(list: &str) -> &str {
    list.split(',').next().unwrap_or_default().trim()
}

type AppIdAndSecret = (String, String);

/// Returns the accounts that the variables name, in their order.
fn read_accounts() -> Result<Vec<AppIdAndSecret>, String> {
    let one = read_app("WECHAT_APPID", "WECHAT_SECRET")?;
    let several = read_variable("WECHAT_ACCOUNTS")?;
    match (one, several) {
        (Some(_), Some(_)) => Err("Set WECHAT_APPID or WECHAT_ACCOUNTS, not both.".to_owned()),
        (one, None) => Ok(one.into_iter().collect()),
        (None, Some(list)) => list
            .split(',')
            .map(|account| match account.trim().split_once(':') {
                Some((app_id, secret)) if !app_id.is_empty() && !secret.is_empty() => {
                    Ok((app_id.to_owned(), secret.to_owned()))
                }
                _ => Err("Set WECHAT_ACCOUNTS to APPID:SECRET,APPID:SECRET.".to_owned()),
            })
            .collect(),
    }
}

/// Returns the AppID and the AppSecret from two variables, or `None` if neither is set.
fn read_app(app_id: &str, secret: &str) -> Result<Option<AppIdAndSecret>, String> {
    match (read_variable(app_id)?, read_variable(secret)?) {
        (Some(app_id), Some(secret)) => Ok(Some((app_id, secret))),
        (None, None) => Ok(None),
        _ => Err(format!("Set {app_id} and {secret} both, or neither.")),
    }
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
