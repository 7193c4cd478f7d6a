//! Searches texts for secrets and for parts of them.

use tower_wechat::simulator::Simulator;

/// Number of characters in a row that count as a part of a secret: 20.
const A_PART: usize = 20;

/// Secrets that a text must not contain, each with a name.
#[derive(Default)]
pub struct Secrets(Vec<(&'static str, String)>);

impl Secrets {
    pub fn add(&mut self, what: &'static str, secret: impl Into<String>) {
        let secret = secret.into();
        assert!(
            secret.len() >= 8,
            "{what} {secret:?} would be found anywhere"
        );
        self.0.push((what, secret));
    }

    /// Adds the AppSecret, and all tokens, tickets and codes that this WeChat has issued.
    pub fn add_all_of(&mut self, wechat: &Simulator) {
        self.add("the app secret", wechat.app_secret());
        for issued in wechat.issued_credentials() {
            for secret in issued.secrets {
                self.add("something that WeChat issued", secret);
            }
        }
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns the lines of the text that contain a secret or a part of one, at most two for each
    /// secret.
    pub fn found_in(&self, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (what, secret) in &self.0 {
            let parts = match secret.len() {
                long if long > 2 * A_PART && secret.is_ascii() => {
                    let middle = long / 2;
                    vec![
                        &secret[..A_PART],
                        &secret[middle..][..A_PART.min(long - middle)],
                    ]
                }
                _ => vec![&**secret],
            };
            let gives_away = |line: &&str| parts.iter().any(|part| line.contains(part));
            let lines = text.lines().filter(gives_away).take(2);
            found.extend(lines.map(|line| format!("{what} {secret:?}: {line}")));
        }
        found
    }

    #[track_caller]
    pub fn are_not_in(&self, place: &str, text: &str) {
        let found = self.found_in(text);
        assert!(found.is_empty(), "in {place}: {found:#?}");
    }
}

#[test]
fn the_search_finds_what_is_there() {
    let mut secrets = Secrets::default();
    let token = "83_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    secrets.add("a token", token);
    secrets.add("a password", "s3cret-of-redis");
    for text in [
        format!("all of it: access_token={token}&openid=o"),
        format!("its first half: {}", &token[..A_PART + 3]),
        format!("its second half: {}", &token[A_PART..]),
        "redis://:s3cret-of-redis@host/".to_owned(),
    ] {
        assert_eq!(
            secrets.found_in(&format!("a line\n{text}\n")).len(),
            1,
            "{text}"
        );
    }
    secrets.are_not_in("a harmless text", "83_abc, and nothing else\nredis://host/");
}
