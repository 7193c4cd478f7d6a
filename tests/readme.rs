//! The README shows code that exists, and names what exists.

use std::path::Path;

use axum::{Router, routing::get};
use tower_wechat::{
    CookieKeys, Error, Login, RedisStore, UserTokens, WechatClient, WechatLayer, WechatUser,
};

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The example that cargo compiles is the one that is shown.
#[test]
fn the_code_is_the_minimal_example() {
    let example = file("examples/minimal.rs");
    let code = example
        .split_once("\n\n")
        .expect("its first lines say what it is")
        .1;
    assert!(file("README.md").contains(&format!("```rust\n{code}```\n")));
}

async fn me(user: WechatUser) -> String {
    user.id().to_owned()
}

/// The second piece of code, compiled.
async fn shown(app_id: &str, app_secret: &str, cookie_keys: CookieKeys) -> Result<Router, Error> {
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

#[test]
fn the_code_with_a_login_compiles() {
    let _ = shown;
    let source = file("tests/readme.rs");
    let code = source.split("    // What is shown begins here.\n").nth(1);
    let code = code.and_then(|rest| rest.split("    // And ends here.").next());
    let lines = code.expect("the marks").lines();
    let code: Vec<&str> = lines
        .map(|line| line.strip_prefix("    ").unwrap_or(line))
        .collect();
    let code = code.join("\n");
    assert!(
        file("README.md").contains(&format!("```rust\n{code}\n```\n")),
        "{code}"
    );
}

/// The demo's table has its variables, all of them and no others.
#[test]
fn the_variables_are_the_demos() {
    let settings = file("examples/demo/settings.rs");
    let read: Vec<&str> = ["set(\"", "seconds(\""]
        .iter()
        .flat_map(|call| settings.split(call).skip(1))
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(read.len() >= 10, "{read:?}");
    let readme = file("README.md");
    let mut shown: Vec<&str> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .collect();
    for name in &read {
        assert!(shown.contains(name), "the README lacks {name}");
    }
    shown.retain(|name| !read.contains(name));
    assert_eq!(shown, Vec::<&str>::new(), "the demo does not read these");
}

/// Links to files of the repository lead somewhere.
#[test]
fn links_lead_somewhere() {
    for page in ["README.md", "CHANGELOG.md"] {
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
