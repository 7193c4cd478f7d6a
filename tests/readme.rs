//! The README shows code that exists, and names what exists.

use std::path::Path;

use axum::{Router, routing::get};
use tower_wechat::{
    AccountTokens, CookieKeys, Error, JsConfig, Login, RedisStore, Tickets, UserTokens,
    WechatClient, WechatLayer, WechatUser,
};

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The same in two languages.
const PAGES: [&str; 2] = ["README.md", "README.zh-CN.md"];

// What is shown begins here.
async fn me(user: WechatUser) -> String {
    format!("hello {}", user.id()) // user.access_token() is fresh
}
// And ends here.

/// The pieces of code, compiled.
async fn user_side(
    app_id: &str,
    app_secret: &str,
    cookie_keys: CookieKeys,
) -> Result<Router, Error> {
    // What is shown begins here.
    let wechat = WechatClient::new(app_id, app_secret)?;
    let store = RedisStore::connect("redis://127.0.0.1/").await?;
    let users = UserTokens::new(wechat, store);
    let login = Login::new("https://h5.example.com", cookie_keys)?;

    let app: Router = Router::new()
        .route("/me", get(me))
        .layer(WechatLayer::new(users).login(login));
    // And ends here.
    Ok(app)
}

async fn account_side(
    wechat: WechatClient,
    store: RedisStore,
    url: &str,
) -> Result<JsConfig, Error> {
    // What is shown begins here.
    let accounts = AccountTokens::new(wechat, store);
    let tickets = Tickets::new(&accounts, ["h5.example.com"])?;

    // location.href goes in, what wx.config takes comes out.
    let config = tickets.js_config(url).await?;
    // And ends here.
    Ok(config)
}

/// Every piece of Rust that is shown is one of those above, and all of those are shown.
#[test]
fn the_code_that_is_shown_compiles() {
    let _ = (user_side, account_side, me);
    let source = file("tests/readme.rs");
    let compiled: Vec<String> = source
        .split("// What is shown begins here.\n")
        .skip(1)
        .filter_map(|rest| rest.split("// And ends here.").next())
        .filter(|piece| !piece.starts_with('"'))
        .map(|piece| {
            let lines = piece.trim_end().lines();
            let lines = lines.map(|line| match piece.starts_with("    ") {
                true => line.strip_prefix("    ").unwrap_or(line),
                false => line,
            });
            lines.collect::<Vec<_>>().join("\n")
        })
        .filter(|piece| !piece.is_empty())
        .collect();
    for page in PAGES {
        let text = file(page);
        let mut shown: Vec<&str> = blocks(&text, "rust").collect();
        let mut compiled: Vec<&str> = compiled.iter().map(String::as_str).collect();
        shown.sort_unstable();
        compiled.sort_unstable();
        assert_eq!(shown, compiled, "{page}");
    }
}

/// The code blocks of a page in one language.
fn blocks<'a>(text: &'a str, language: &str) -> impl Iterator<Item = &'a str> {
    let start = format!("```{language}\n");
    text.match_indices(&start)
        .map(|(at, start)| &text[at + start.len()..])
        .filter_map(|rest| rest.split("\n```").next())
        .collect::<Vec<_>>()
        .into_iter()
}

/// Both languages have the same parts: headings by level, rows of tables, blocks of code, links
/// and pictures.
#[test]
fn both_languages_say_as_much() {
    let [english, chinese] = PAGES.map(file);
    let lines = |text: &str, starts: &str| {
        text.lines()
            .filter(|line| line.starts_with(starts))
            .map(|line| line.split(' ').next().unwrap_or_default().len())
            .collect::<Vec<_>>()
    };
    assert_eq!(lines(&english, "#"), lines(&chinese, "#"), "headings");
    let count = |text: &str, what: &str| text.matches(what).count();
    for what in ["\n| ", "\n- ", "\n```", "](", "<!-- "] {
        assert_eq!(count(&english, what), count(&chinese, what), "{what:?}");
    }
}

/// Whoever copies the commands gets the same in both.
#[test]
fn both_languages_have_the_same_commands() {
    let [english, chinese] = PAGES.map(file);
    let commands = |text: &str| -> Vec<String> {
        let lines = blocks(text, "sh").flat_map(str::lines);
        lines
            .map(|line| {
                line.split("  #")
                    .next()
                    .unwrap_or_default()
                    .trim()
                    .to_owned()
            })
            .collect()
    };
    assert_eq!(commands(&english), commands(&chinese));
}

/// The demo's table has its variables, all of them and no others.
#[test]
fn the_variables_are_the_demos() {
    let settings = file("examples/demo/settings.rs");
    let read: Vec<&str> = [
        "read_variable(\"",
        "read_key(\"",
        "read_choice(\"",
        "read_seconds(\"",
        "read_named_file(\"",
    ]
    .iter()
    .flat_map(|call| settings.split(call).skip(1))
    .filter_map(|rest| rest.split('"').next())
    .collect();
    assert!(read.len() >= 10, "{read:?}");
    for page in PAGES {
        let readme = file(page);
        let table = readme
            .lines()
            .skip_while(|line| !line.starts_with("| `LISTEN`"))
            .take_while(|line| line.starts_with("| "));
        let mut shown: Vec<&str> = table
            .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .collect();
        for name in &read {
            assert!(shown.contains(name), "{page} lacks {name}");
        }
        shown.retain(|name| !read.contains(name));
        assert_eq!(
            shown,
            Vec::<&str>::new(),
            "{page}: the demo does not read these"
        );
    }
}

/// The tables of features have the crate's own, all of them and no others.
#[test]
fn the_features_are_the_crates() {
    let manifest = file("Cargo.toml");
    let (_, rest) = manifest.split_once("[features]\n").unwrap();
    let (lines, _) = rest.split_once("\n\n").unwrap();
    let names = lines.lines().filter_map(|line| line.split(" = ").next());
    let mut features: Vec<&str> = names.filter(|name| *name != "default").collect();
    features.sort_unstable();
    assert!(features.len() >= 7, "{features:?}");
    for (page, heading) in [
        ("README.md", "## Features\n"),
        ("README.zh-CN.md", "## Features\n"),
        ("src/lib.rs", "//! # Features\n"),
    ] {
        let text = file(page);
        let (_, part) = text.split_once(heading).unwrap();
        let rows = part.lines().map(|line| line.trim_start_matches("//! "));
        let rows = rows
            .skip_while(|line| !line.starts_with("| `"))
            .take_while(|line| line.starts_with("| `"));
        let mut shown: Vec<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
        shown.sort_unstable();
        assert_eq!(shown, features, "{page}");
    }
}

/// Links to files of the repository lead somewhere.
#[test]
fn links_lead_somewhere() {
    for page in [
        "README.md",
        "README.zh-CN.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
    ] {
        let text = file(page);
        let links = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://") && !link.starts_with('#')) {
            assert!(
                Path::new(env!("CARGO_MANIFEST_DIR")).join(link).exists(),
                "{page}: {link}"
            );
        }
    }
}
